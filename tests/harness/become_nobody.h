// What a child does between fork and exec to be without privilege. System calls
// only: the forking process may have threads.

#ifndef TESTS_HARNESS_BECOME_NOBODY_H_
#define TESTS_HARNESS_BECOME_NOBODY_H_

#include <sys/types.h>

namespace bpfgrant::test {

// Gives up groups, the bounding set, uid, gid, and every capability. Null, or
// the name of the step that failed, with errno.
const char* BecomeNobody(uid_t uid, gid_t gid, bool no_new_privileges);

}  // namespace bpfgrant::test

#endif  // TESTS_HARNESS_BECOME_NOBODY_H_
