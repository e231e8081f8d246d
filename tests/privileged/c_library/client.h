// The client: what its parts share.

#ifndef TESTS_PRIVILEGED_C_LIBRARY_CLIENT_H_
#define TESTS_PRIVILEGED_C_LIBRARY_CLIENT_H_

#include <cstdio>
#include <cstdlib>

#include "client/bpfgrant/bpfgrant.h"

inline bpfgrant_error error = BPFGRANT_ERROR_INIT;

// Ends the client unless both are the same.
#define EXPECT_SAME(what, value)                                           \
  do {                                                                     \
    const long long is = static_cast<long long>(what);                     \
    const long long should = static_cast<long long>(value);                \
    if (is != should) {                                                    \
      std::printf("%s:%d: %s is %lld and not %lld; last error: %s (%s)\n", \
                  __FILE__, __LINE__, #what, is, should, error.message,    \
                  bpfgrant_reason_name(error.reason));                     \
      std::exit(1);                                                        \
    }                                                                      \
  } while (false)

// A loop, in the kernel where that has them, and in the process.
void RunLoops(bpfgrant_connection* connection);

#endif  // TESTS_PRIVILEGED_C_LIBRARY_CLIENT_H_
