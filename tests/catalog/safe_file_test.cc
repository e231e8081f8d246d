#include "daemon/loader/safe_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/wire/limits.h"
#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

constexpr uid_t kNobody = 65534;

// Each attack is tried twice: it fails, and with file_safety off it succeeds.
class SafeFileTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::string> Read(const std::string& name, bool judged = true,
                                   const std::string& below = "") {
    Mitigations mitigations;
    mitigations.file_safety = judged;
    const auto directory =
        SafeDirectory::Open(folder_.path() + below, mitigations);
    if (!directory.ok()) return directory.status();
    const auto bytes = directory->Read(name, 1000);
    if (!bytes.ok()) return bytes.status();
    return std::string(bytes->view());
  }
  void ExpectOnlyUnjudged(const std::string& why,
                          const std::string& below = "") {
    EXPECT_THAT(Read("file", true, below).status(),
                Refused(v1::REASON_FILE_UNSAFE, why));
    const auto unjudged = Read("file", false, below);
    ASSERT_TRUE(unjudged.ok()) << unjudged.status();
    EXPECT_EQ(*unjudged, "text");
  }
  std::string Path(const std::string& name) { return folder_.path() + name; }
  TemporaryFolder folder_;
};

TEST_F(SafeFileTest, ReadsAGoodFile) {
  folder_.Write("file", "text");
  const auto bytes = Read("file");
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(*bytes, "text");
}

TEST_F(SafeFileTest, SymbolicLink) {
  folder_.Write("target", "text");
  ASSERT_EQ(symlink("target", Path("/file").c_str()), 0);
  ExpectOnlyUnjudged("symbolic link");
}

TEST_F(SafeFileTest, HardLink) {
  folder_.Write("other", "text");
  ASSERT_EQ(link(Path("/other").c_str(), Path("/file").c_str()), 0);
  ExpectOnlyUnjudged("hard links");
}

TEST_F(SafeFileTest, Fifo) {
  ASSERT_EQ(mkfifo(Path("/file").c_str(), 0644), 0);
  const int writer = open(Path("/file").c_str(), O_RDWR | O_NONBLOCK);
  ASSERT_GE(writer, 0);
  EXPECT_THAT(Read("file").status(),
              Refused(v1::REASON_FILE_UNSAFE, "regular"));
  close(writer);
}

// The attack: what counts is what somebody writes at that moment.
TEST_F(SafeFileTest, FifoWithoutTheMitigation) {
  ASSERT_EQ(mkfifo(Path("/file").c_str(), 0644), 0);
  // Holds the pipe's contents until the writer is gone.
  const int holder = open(Path("/file").c_str(), O_RDONLY | O_NONBLOCK);
  const int writer = open(Path("/file").c_str(), O_WRONLY);
  ASSERT_EQ(write(writer, "text", 4), 4);
  close(writer);
  const auto bytes = Read("file", false);
  close(holder);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(*bytes, "text");
}

TEST_F(SafeFileTest, WrongOwner) {
  ASSERT_EQ(chown(folder_.Write("file", "text").c_str(), kNobody, 0), 0);
  ExpectOnlyUnjudged("belongs to uid 65534");
}

TEST_F(SafeFileTest, WorldWritableFile) {
  ASSERT_EQ(chmod(folder_.Write("file", "text").c_str(), 0646), 0);
  ExpectOnlyUnjudged("everybody can write");
}

TEST_F(SafeFileTest, GroupWritableFile) {
  ASSERT_EQ(chmod(folder_.Write("file", "text").c_str(), 0664), 0);
  ExpectOnlyUnjudged("group can write");
}

TEST_F(SafeFileTest, WorldWritableDirectory) {
  folder_.Write("file", "text");
  ASSERT_EQ(chmod(folder_.path().c_str(), 0777), 0);
  ExpectOnlyUnjudged("everybody can write");
}

// Adding a file is enough to override another folder's, so it does not help.
TEST_F(SafeFileTest, StickyDirectory) {
  folder_.Write("file", "text");
  ASSERT_EQ(chmod(folder_.path().c_str(), 01777), 0);
  ExpectOnlyUnjudged("everybody can write");
}

TEST_F(SafeFileTest, DirectoryOfAnotherOwner) {
  folder_.Write("file", "text");
  ASSERT_EQ(chown(folder_.path().c_str(), kNobody, 0), 0);
  ExpectOnlyUnjudged("belongs to uid 65534");
}

TEST_F(SafeFileTest, WorldWritableParent) {
  ASSERT_EQ(mkdir(Path("/below").c_str(), 0755), 0);
  folder_.Write("below/file", "text");
  ASSERT_EQ(chmod(folder_.path().c_str(), 0777), 0);
  ExpectOnlyUnjudged(folder_.path() + ": everybody", "/below");
}

TEST_F(SafeFileTest, StickyParentIsGood) {
  ASSERT_EQ(mkdir(Path("/below").c_str(), 0755), 0);
  folder_.Write("below/file", "text");
  ASSERT_EQ(chmod(folder_.path().c_str(), 01777), 0);
  EXPECT_TRUE(Read("file", true, "/below").ok());
}

TEST_F(SafeFileTest, LinkedDirectory) {
  ASSERT_EQ(mkdir(Path("/real").c_str(), 0755), 0);
  folder_.Write("real/file", "text");
  ASSERT_EQ(symlink("real", Path("/below").c_str()), 0);
  ExpectOnlyUnjudged("symbolic link", "/below");
}

TEST_F(SafeFileTest, NamesThatAreNone) {
  for (const char* name : {"", ".", "..", "a/b", "/etc/passwd"}) {
    EXPECT_THAT(Read(name).status(),
                Refused(v1::REASON_INVALID_ARGUMENT, "plain file name"));
  }
  EXPECT_TRUE(absl::IsNotFound(Read("absent").status()));
  EXPECT_TRUE(absl::IsNotFound(Read("file", true, "/absent").status()));
  EXPECT_THAT(SafeDirectory::Open("relative", {}).status(),
              Refused(v1::REASON_INVALID_ARGUMENT, "absolute"));
  EXPECT_THAT(Read("file", true, "/..").status(),
              Refused(v1::REASON_FILE_UNSAFE, "'..'"));
}

TEST_F(SafeFileTest, Sizes) {
  folder_.Write("file", std::string(1000, 'a'));
  EXPECT_TRUE(Read("file").ok());
  folder_.Write("file", std::string(1001, 'a'));
  EXPECT_THAT(Read("file").status(), Refused(v1::REASON_TOO_LARGE, "1001"));
  ASSERT_EQ(truncate(Path("/file").c_str(), 100 * 1024 * 1024), 0);
  EXPECT_THAT(Read("file").status(),
              Refused(v1::REASON_TOO_LARGE, "104857600"));
  folder_.Write("file", "");
  const auto empty = Read("file");
  ASSERT_TRUE(empty.ok()) << empty.status();
  EXPECT_EQ(*empty, "");
}

// A file that says it is empty and is not: what a growing one looks like to
// whoever asked its size before.
TEST_F(SafeFileTest, LongerThanItSaid) {
  const auto directory = SafeDirectory::Open("/proc/sys/kernel", {});
  ASSERT_TRUE(directory.ok()) << directory.status();
  EXPECT_THAT(directory->Read("ostype", 1000).status(),
              Refused(v1::REASON_FILE_UNSAFE, "changed while it was read"));
}

TEST_F(SafeFileTest, OpenForWriting) {
  const std::string path = folder_.Write("file", "text");
  const UniqueFd writer(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  ExpectOnlyUnjudged("open for writing");
}

// Opens, rewrites and closes a file again and again, each time with another
// letter, until it is destroyed.
class Rewriter {
 public:
  static constexpr size_t kSize = 4 * 1024 * 1024;
  explicit Rewriter(std::string path)
      : thread_([this, path = std::move(path)] {
          for (char c = 'b'; !done_; c = c == 'z' ? 'a' : c + 1) {
            const std::string bytes(kSize, c);
            const UniqueFd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
            EXPECT_EQ(pwrite(fd.get(), bytes.data(), bytes.size(), 0),
                      static_cast<ssize_t>(kSize));
          }
        }) {}
  ~Rewriter() {
    done_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> done_ = false;
  std::thread thread_;
};

// Reads the file until it was read `count` times; returns how often that gave
// two states of it in one. The attack is to make that happen.
int CountTorn(const std::string& folder, bool judged, int count) {
  Mitigations mitigations;
  mitigations.file_safety = judged;
  const auto directory = SafeDirectory::Open(folder, mitigations);
  EXPECT_TRUE(directory.ok());
  int torn = 0;
  for (int read = 0, tries = 0; read < count && tries < 5000; ++tries) {
    const auto bytes = directory->Read("big", kMaxObjectBytes);
    if (!bytes.ok()) {
      EXPECT_EQ(ReasonOf(bytes.status()), v1::REASON_FILE_UNSAFE);
      usleep(500);
      continue;
    }
    ++read;
    if (bytes->view().find_first_not_of(bytes->view().front()) !=
        std::string_view::npos) {
      ++torn;
    }
  }
  return torn;
}

TEST_F(SafeFileTest, RewrittenWhileItIsRead) {
  const Rewriter rewriter(
      folder_.Write("big", std::string(Rewriter::kSize, 'a')));
  EXPECT_EQ(CountTorn(folder_.path(), true, 50), 0);
}

TEST_F(SafeFileTest, RewrittenWhileItIsReadUnjudged) {
  const Rewriter rewriter(
      folder_.Write("big", std::string(Rewriter::kSize, 'a')));
  int torn = 0;
  for (int i = 0; i < 50 && torn == 0; ++i) {
    torn = CountTorn(folder_.path(), false, 20);
  }
  EXPECT_GT(torn, 0);
}

// One that grows is never read in part: what comes back is what was complete.
TEST_F(SafeFileTest, GrowingWhileItIsRead) {
  const std::string path = folder_.Write("log", "line\n");
  const UniqueFd fd(open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  const auto directory = SafeDirectory::Open(folder_.path(), {});
  ASSERT_TRUE(directory.ok());
  std::atomic<bool> done = false;
  std::thread writer([&] {
    while (!done) {
      EXPECT_EQ(write(fd.get(), "line\n", 5), 5);
      usleep(100);
    }
  });
  for (int i = 0; i < 20; ++i) {
    EXPECT_THAT(directory->Read("log", kMaxObjectBytes).status(),
                Refused(v1::REASON_FILE_UNSAFE, "open for writing"));
  }
  done = true;
  writer.join();
}

TEST_F(SafeFileTest, ListsSortedAndLimited) {
  for (const char* name :
       {"b.manifest", "a.manifest", ".c.manifest", "d.txt"}) {
    folder_.Write(name, "");
  }
  const auto directory = SafeDirectory::Open(folder_.path(), {});
  ASSERT_TRUE(directory.ok());
  const auto names = directory->List(".manifest");
  ASSERT_TRUE(names.ok());
  EXPECT_THAT(*names, ::testing::ElementsAre("a.manifest", "b.manifest"));
  for (size_t i = 0; i < kMaxFilesPerDirectory; ++i) {
    folder_.Write(absl::StrCat("n", i, ".manifest"), "");
  }
  EXPECT_THAT(directory->List(".manifest").status(),
              Refused(v1::REASON_TOO_LARGE, "4096"));
}

TEST(SealedBytesTest, CannotBeChanged) {
  auto sealed = SealedBytes::Copy("text", "test");
  ASSERT_TRUE(sealed.ok()) << sealed.status();
  EXPECT_EQ(write(sealed->fd(), "x", 1), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(ftruncate(sealed->fd(), 0), -1);
  EXPECT_EQ(
      mmap(nullptr, 4, PROT_READ | PROT_WRITE, MAP_SHARED, sealed->fd(), 0),
      MAP_FAILED);
  EXPECT_EQ(fcntl(sealed->fd(), F_ADD_SEALS, 0), -1);
  EXPECT_EQ(sealed->view(), "text");
  const SealedBytes moved = *std::move(sealed);
  EXPECT_EQ(moved.view(), "text");
}

}  // namespace
}  // namespace bpfgrant::daemon
