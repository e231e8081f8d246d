// Rules that name executables: which file a process really executes, and what
// is not known of it.

#include <fcntl.h>
#include <linux/fsverity.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/harness/private_folder.h"
#include "tests/harness/process_tree.h"
#include "tests/privileged/client_fixture.h"

namespace bpfgrant::test {
namespace {

constexpr char kGranted[] = "ok";
constexpr char kDenied[] = "refused denied-by-default";

// As coreutils have it.
std::string DigestOf(const std::string& file) {
  std::FILE* pipe = popen(absl::StrCat("sha256sum ", file).c_str(), "r");
  std::array<char, 65> digest{};
  EXPECT_EQ(std::fread(digest.data(), 1, 64, pipe), 64u) << file;
  EXPECT_EQ(pclose(pipe), 0) << file;
  return digest.data();
}

class ExecutableTest : public ClientTest {
 protected:
  // A file of its own that the client can execute; with `more`, another one.
  std::string Copy(const std::string& name, const std::string& more = "") {
    return CopyTo(folder_.path() / name, more);
  }
  static std::string CopyTo(const std::filesystem::path& path,
                            const std::string& more = "") {
    std::filesystem::copy_file(
        Nobody::Path(), path,
        std::filesystem::copy_options::overwrite_existing);
    // Behind all that an ELF file says it has.
    std::ofstream(path, std::ios::app) << more;
    EXPECT_EQ(chmod(path.c_str(), 0755), 0);
    return path;
  }
  // A daemon whose one rule allows who executes what `executable` says.
  void StartFor(const std::string& executable,
                const std::vector<std::string>& without = {}) {
    DaemonOptions options;
    options.policy = absl::StrCat(
        "rule { name: 'r' effect: ALLOW program: '*' quota { grants: 64 }\n"
        "  trusted: true executable { ",
        executable, " } }\n");
    options.programs = {"packet_sampler"};
    options.without = without;
    ASSERT_NO_FATAL_FAILURE(Start(options));
  }
  std::string Asked(Nobody& client) {
    Connect(client);
    return client.Ask("acquire packet_sampler program").substr(0, 25);
  }
  std::string AskedBy(const std::string& file) {
    Nobody client(file);
    return Asked(client);
  }
  void ExpectGranted(const std::string& file) {
    EXPECT_EQ(AskedBy(file).substr(0, 2), kGranted) << file;
  }
  void ExpectDenied(const std::string& file) {
    EXPECT_EQ(AskedBy(file), kDenied) << file;
  }
  // What a client gets that has mounted another file where the one is that the
  // rule names.
  std::string AskedInDisguise(const std::string& file, const std::string& as) {
    Nobody client;
    const std::string disguised =
        client.Ask(absl::StrCat("disguise ", file, " ", as));
    EXPECT_EQ(disguised, "ok");
    // Without the library, which sees no root where there are other users.
    EXPECT_EQ(client.Ask("raw-connect " + daemon().broker_socket()), "ok");
    EXPECT_EQ(client.Ask("raw-hello"), "ok");
    EXPECT_EQ(client.Ask("raw-receive").substr(0, 2), kGranted);
    return AskedRaw(client);
  }
  static std::string AskedRaw(Nobody& client) {
    EXPECT_EQ(client.Ask("raw-acquire packet_sampler"), "ok");
    return client.Ask("raw-receive").substr(0, 25);
  }
  // What a client gets that asked once and then executes another file, with its
  // session kept.
  std::string AskedAfterExec(const std::string& first,
                             const std::string& then) {
    Nobody client(first);
    EXPECT_EQ(Asked(client).substr(0, 2), kGranted);
    client.Do("raw-take-over");
    EXPECT_EQ(client.Ask(absl::StrCat("exec ", then)), "ok");
    return AskedRaw(client);
  }

  // /tmp is in memory where there is a /scratch.
  PrivateFolder folder_{
      std::filesystem::exists("/scratch") ? "/scratch/" : ::testing::TempDir()};
};

TEST_F(ExecutableTest, APathIsThatOfOneFile) {
  const std::string server = Copy("server");
  const std::string other = Copy("other");
  ASSERT_NO_FATAL_FAILURE(StartFor(absl::StrCat("path: '", server, "'")));
  ExpectGranted(server);
  ExpectDenied(other);
}

TEST_F(ExecutableTest, ADigestIsThatOfTheBytes) {
  const std::string server = Copy("server");
  const std::string same = Copy("same");
  const std::string other = Copy("other", "more");
  ASSERT_NO_FATAL_FAILURE(
      StartFor(absl::StrCat("sha256: '", DigestOf(server), "'")));
  ExpectGranted(server);
  ExpectGranted(same);
  ExpectDenied(other);
}

TEST_F(ExecutableTest, AnFsVerityDigestIsTheKernels) {
  const std::string server = Copy("server");
  const std::string plain = Copy("plain");
  const UniqueFd file(open(server.c_str(), O_RDONLY | O_CLOEXEC));
  fsverity_enable_arg enable{};
  enable.version = 1;
  enable.hash_algorithm = FS_VERITY_HASH_ALG_SHA256;
  enable.block_size = 4096;
  if (ioctl(file.get(), FS_IOC_ENABLE_VERITY, &enable) < 0) {
    GTEST_SKIP() << "kernel: no fs-verity on this file system: "
                 << std::strerror(errno);
  }
  alignas(fsverity_digest) std::array<char, sizeof(fsverity_digest) + 32>
      room{};
  auto* digest = reinterpret_cast<fsverity_digest*>(room.data());
  digest->digest_size = 32;
  ASSERT_EQ(ioctl(file.get(), FS_IOC_MEASURE_VERITY, digest), 0);
  ASSERT_NO_FATAL_FAILURE(StartFor(absl::StrCat(
      "fsverity: 'sha256:",
      absl::BytesToHexString({room.data() + sizeof(fsverity_digest), 32}),
      "'")));
  ExpectGranted(server);
  ExpectDenied(plain);
}

// An upgrade: what runs still is not the file that has the name now.
TEST_F(ExecutableTest, AFileThatWasReplacedHasNoPathAndKeepsItsDigest) {
  const std::string server = Copy("server");
  ASSERT_NO_FATAL_FAILURE(StartFor(absl::StrCat("path: '", server, "'")));
  Nobody client(server);
  ASSERT_EQ(Asked(client).substr(0, 2), kGranted);
  std::filesystem::rename(Copy("new", "more"), server);
  EXPECT_EQ(client.Ask("acquire packet_sampler program").substr(0, 25),
            kDenied);
  ExpectGranted(server);
}

TEST_F(ExecutableTest, ADeletedFileKeepsItsDigest) {
  const std::string server = Copy("server");
  ASSERT_NO_FATAL_FAILURE(
      StartFor(absl::StrCat("sha256: '", DigestOf(server), "'")));
  Nobody client(server);
  ASSERT_TRUE(std::filesystem::remove(server));
  Connect(client);
  // Not at once: that was a change, too.
  EXPECT_TRUE(WaitUntil(
      [&] {
        return client.Ask("acquire packet_sampler program").substr(0, 2) ==
               kGranted;
      },
      kPatience));
}

TEST_F(ExecutableTest, AMountOfTheClientsOwnIsNoDisguise) {
  const std::string server = Copy("server");
  const std::string other = Copy("other", "more");
  ASSERT_NO_FATAL_FAILURE(StartFor(absl::StrCat("path: '", server, "'")));
  EXPECT_EQ(AskedInDisguise(other, server), kDenied);
}

TEST_F(ExecutableTest, AMountOfTheClientsOwnIsOne_WithoutMitigation) {
  const std::string server = Copy("server");
  const std::string other = Copy("other", "more");
  ASSERT_NO_FATAL_FAILURE(StartFor(absl::StrCat("path: '", server, "'"),
                                   {"executable_path_check"}));
  EXPECT_EQ(AskedInDisguise(other, server).substr(0, 2), kGranted);
}

TEST_F(ExecutableTest, WhatASessionExecutesLaterIsNotWhatItExecuted) {
  const std::string server = Copy("server");
  const std::string other = Copy("other");
  ASSERT_NO_FATAL_FAILURE(StartFor(absl::StrCat("path: '", server, "'")));
  EXPECT_EQ(AskedAfterExec(server, other), kDenied);
}

TEST_F(ExecutableTest, WhatASessionExecutesLaterIsServed_WithoutMitigation) {
  const std::string server = Copy("server");
  const std::string other = Copy("other");
  ASSERT_NO_FATAL_FAILURE(
      StartFor(absl::StrCat("path: '", server, "'"), {"executable_each_time"}));
  EXPECT_EQ(AskedAfterExec(server, other).substr(0, 2), kGranted);
}

// On a file system on which a file can change while it is executed.
class ExecutableOnTmpfsTest : public ExecutableTest {
 protected:
  void SetUp() override {
    ExecutableTest::SetUp();
    if (IsSkipped()) return;
    trusted_ = Copy("server");
    mounted_ = folder_.path() / "mounted";
    std::filesystem::create_directory(mounted_);
    ASSERT_EQ(mount("tmpfs", mounted_.c_str(), "tmpfs", 0, nullptr), 0);
    server_ = CopyTo(mounted_ / "server");
  }
  void TearDown() override {
    umount2(mounted_.c_str(), MNT_DETACH);
    ExecutableTest::TearDown();
  }
  std::string Digest() {
    return absl::StrCat("sha256: '", DigestOf(server_), "'");
  }

  std::filesystem::path mounted_;
  std::string trusted_, server_;
};

TEST_F(ExecutableOnTmpfsTest, HasNoDigest) {
  ASSERT_NO_FATAL_FAILURE(StartFor(Digest()));
  ExpectGranted(trusted_);
  ExpectDenied(server_);
}

TEST_F(ExecutableOnTmpfsTest, HasOne_WithoutMitigation) {
  ASSERT_NO_FATAL_FAILURE(StartFor(Digest(), {"executable_filesystem"}));
  ExpectGranted(server_);
}

TEST_F(ExecutableTest, AScriptIsItsInterpreter) {
  const std::string interpreter = Copy("interpreter");
  const std::string script = folder_.path() / "script";
  std::ofstream(script) << "#!" << interpreter << "\n";
  ASSERT_EQ(chmod(script.c_str(), 0755), 0);
  const std::string path = absl::StrCat("path: '", script, "'");
  ASSERT_NO_FATAL_FAILURE(StartFor(path));
  Nobody as_script;
  as_script.Do(absl::StrCat("become ", script));
  EXPECT_EQ(Asked(as_script), kDenied);
  daemon().WritePolicy(
      "rule { name: 'r' effect: ALLOW program: '*' quota { grants: 64 }\n"
      "  executable { path: '" +
      interpreter + "' } trusted: true }\n");
  ASSERT_TRUE(daemon().Reload().ok());
  EXPECT_EQ(as_script.Ask("acquire packet_sampler program").substr(0, 2),
            kGranted);
}

TEST_F(ExecutableTest, ExplainSaysWhatALiveProcessExecutes) {
  const std::string server = Copy("server");
  ASSERT_NO_FATAL_FAILURE(StartFor(absl::StrCat("path: '", server, "'")));
  const auto explain = [this](pid_t pid) {
    v1::ExplainRequest request;
    request.set_program("packet_sampler");
    request.set_pid(static_cast<uint32_t>(pid));
    auto reply = administrator().Explain(request);
    EXPECT_TRUE(reply.ok()) << reply.status();
    return reply.ok() ? *reply : v1::ExplainReply();
  };
  Nobody client(server), other;
  const v1::ExplainReply yes = explain(client.pid());
  EXPECT_TRUE(yes.verdict().allowed());
  EXPECT_EQ(yes.subject().executable(), server);
  const v1::ExplainReply no = explain(other.pid());
  EXPECT_FALSE(no.verdict().allowed());
  ASSERT_EQ(no.consulted_size(), 1);
  EXPECT_EQ(no.consulted(0).why(),
            absl::StrCat("its executable is ", Nobody::Path()));
}

}  // namespace
}  // namespace bpfgrant::test
