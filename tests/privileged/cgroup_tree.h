// Directories of the cgroup v2 hierarchy, for tests: as a system manager, a
// user's manager or a user would make them. Removed with this, for which their
// processes have to be gone.

#ifndef TESTS_PRIVILEGED_CGROUP_TREE_H_
#define TESTS_PRIVILEGED_CGROUP_TREE_H_

#include <sys/types.h>

#include <string>
#include <vector>

namespace bpfgrant::test {

class CgroupTree {
 public:
  CgroupTree();
  ~CgroupTree();
  CgroupTree(const CgroupTree&) = delete;
  CgroupTree& operator=(const CgroupTree&) = delete;

  // False: no cgroup v2 is mounted here.
  bool usable() const { return !root_.empty(); }
  // Of this process alone: "bt123".
  const std::string& name() const { return name_; }

  // Makes `path` ("/a.slice/b.service") and what is above it. From the first
  // directory that is made on, all belong to `owner`.
  void Make(const std::string& path, uid_t owner = 0);
  // Has `owner`, without privilege, make the last directory of `path`.
  void MakeAs(uid_t owner, const std::string& path);
  void Give(const std::string& path, uid_t owner);
  void Enter(const std::string& path, pid_t process);

 private:
  std::string root_;
  const std::string name_;
  std::vector<std::string> made_;  // in this order
};

}  // namespace bpfgrant::test

#endif  // TESTS_PRIVILEGED_CGROUP_TREE_H_
