// A folder of whoever runs the test, that goes away with this object.

#ifndef TESTS_HARNESS_PRIVATE_FOLDER_H_
#define TESTS_HARNESS_PRIVATE_FOLDER_H_

#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

#include "gtest/gtest.h"

namespace bpfgrant::test {

class PrivateFolder {
 public:
  // Below `parent`, which ends in a slash; others may read it.
  explicit PrivateFolder(const std::string& parent = ::testing::TempDir()) {
    std::string name = parent + "bpfgrant-test.XXXXXX";
    EXPECT_NE(mkdtemp(name.data()), nullptr) << name;
    EXPECT_EQ(chmod(name.c_str(), 0755), 0) << name;
    path_ = name;
  }
  ~PrivateFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  PrivateFolder(const PrivateFolder&) = delete;
  PrivateFolder& operator=(const PrivateFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace bpfgrant::test

#endif  // TESTS_HARNESS_PRIVATE_FOLDER_H_
