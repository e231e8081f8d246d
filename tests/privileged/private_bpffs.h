// A bpffs that nobody may write to, in this process's own mount namespace;
// children inherit it. Needs CAP_SYS_ADMIN.

#ifndef TESTS_PRIVILEGED_PRIVATE_BPFFS_H_
#define TESTS_PRIVILEGED_PRIVATE_BPFFS_H_

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "gtest/gtest.h"

namespace bpfgrant::test {

class PrivateBpffs {
 public:
  PrivateBpffs() {
    char name[] = "/run/bpfgrant-bpffs.XXXXXX";
    EXPECT_NE(mkdtemp(name), nullptr);
    path_ = name;
    mounted_ = unshare(CLONE_NEWNS) == 0 &&
               mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
               mount("bpffs", name, "bpf", 0, nullptr) == 0 &&
               chmod(name, 01777) == 0;
    EXPECT_TRUE(mounted_) << std::strerror(errno);
  }
  ~PrivateBpffs() {
    umount2(path_.c_str(), MNT_DETACH);
    rmdir(path_.c_str());
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  bool mounted_ = false;
};

}  // namespace bpfgrant::test

#endif  // TESTS_PRIVILEGED_PRIVATE_BPFFS_H_
