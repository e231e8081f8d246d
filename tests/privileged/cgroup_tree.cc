#include "tests/privileged/cgroup_tree.h"

#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/harness/process_tree.h"
#include "tests/harness/unprivileged.h"

namespace bpfgrant::test {

CgroupTree::CgroupTree() : name_(absl::StrCat("bt", getpid())) {
  for (const char* root : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
    struct statfs status {};
    if (statfs(root, &status) == 0 && status.f_type == CGROUP2_SUPER_MAGIC) {
      root_ = root;
      return;
    }
  }
}

CgroupTree::~CgroupTree() {
  // A killed process leaves its cgroup a little later than it is reaped.
  for (auto path = made_.rbegin(); path != made_.rend(); ++path) {
    EXPECT_TRUE(WaitUntil([&] { return rmdir(path->c_str()) == 0; },
                          std::chrono::seconds(20)))
        << *path;
  }
}

void CgroupTree::Make(const std::string& path, uid_t owner) {
  size_t end = 0;
  while (end < path.size()) {
    end = std::min(path.find('/', end + 1), path.size());
    const std::string directory = root_ + path.substr(0, end);
    if (mkdir(directory.c_str(), 0755) < 0) continue;
    made_.push_back(directory);
    EXPECT_EQ(chown(directory.c_str(), owner, owner), 0);
  }
  EXPECT_EQ(access((root_ + path).c_str(), F_OK), 0) << root_ << path;
}

void CgroupTree::MakeAs(uid_t owner, const std::string& path) {
  UnprivilegedOptions options;
  options.uid = owner;
  options.gid = owner;
  const Outcome made = RunUnprivileged("/bin/mkdir", {root_ + path}, options);
  ASSERT_TRUE(made.ok()) << made.Describe();
  made_.push_back(root_ + path);
}

void CgroupTree::Give(const std::string& path, uid_t owner) {
  EXPECT_EQ(chown((root_ + path).c_str(), owner, owner), 0);
}

void CgroupTree::Enter(const std::string& path, pid_t process) {
  std::ofstream file(root_ + path + "/cgroup.procs");
  file << process << std::flush;
  EXPECT_TRUE(file.good()) << path;
}

}  // namespace bpfgrant::test
