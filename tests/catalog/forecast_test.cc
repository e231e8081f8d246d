// What a kernel's BTF tells of a program, beside what the kernel itself says to
// it; and BTF that was made to do harm.

#include "daemon/loader/forecast.h"

#include <elf.h>
#include <fcntl.h>
#include <linux/btf.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "daemon/loader/btf_file.h"
#include "daemon/loader/needs.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/wire/limits.h"
#include "proto/wire/unique_fd.h"
#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string ReaderManifest(const std::string& function,
                           const std::string& object) {
  std::string text =
      SampleManifest("sample", object, "function: \"sample\"",
                     absl::StrCat("function: \"", function, "\""));
  return text.substr(0, text.find("map {"));
}

class ForecastTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_BPF();
    auto types = KernelTypes::OfThisKernel();
    ASSERT_TRUE(types.ok()) << types.status();
    kernel_ = std::make_unique<KernelTypes>(*std::move(types));
  }

  Forecast ForetellOne(const std::string& function,
                       const std::string& object = "reader") {
    const std::string bytes = ObjectBytes(object);
    folder_.Write("sample.bpf.o", bytes);
    const std::string manifest = ReaderManifest(function, bytes);
    folder_.Write("sample.manifest", manifest);
    const auto folder = SafeDirectory::Open(folder_.path(), {});
    EXPECT_TRUE(folder.ok()) << folder.status();
    const auto program = Inspect(*folder, "sample.manifest", manifest, {});
    EXPECT_TRUE(program->available()) << RefusalFor(*program);
    return Foretell(*program, 0, *kernel_);
  }
  // The one that was foretold last.
  std::shared_ptr<const Program> Load() {
    return AdmitFrom(folder_.path(), "sample");
  }

  TemporaryFolder folder_;
  std::unique_ptr<KernelTypes> kernel_;
};

TEST_F(ForecastTest, NothingAgainstWhatIsThere) {
  const Forecast forecast = ForetellOne("has_all");
  EXPECT_TRUE(forecast.against.ok()) << forecast.against;
  EXPECT_THAT(forecast.open, IsEmpty());
  EXPECT_TRUE(Load()->available()) << RefusalFor(*Load());
}

// And the kernel refuses each of them indeed.
TEST_F(ForecastTest, WhatIsMissingIsNamed) {
  struct Case {
    const char* function;
    const char* words;
  };
  for (const Case& one :
       {Case{"lacks_field", "the kernel has no 'task_struct.never_heard_of'"},

        Case{"lacks_value", "the kernel has no 'BPF_MAP_TYPE_NEVER_HEARD_OF'"},
        Case{"takes_it_for_another", "the kernel has no 'task_struct.pid'"},
        Case{"calls_what_is_not",
             "the kernel has no helper 'number 100000'"}}) {
    const Forecast forecast = ForetellOne(one.function);
    EXPECT_EQ(ReasonOf(forecast.against), v1::REASON_KERNEL_TOO_OLD);
    EXPECT_THAT(std::string(forecast.against.message()),
                HasSubstr(absl::StrCat("sample.manifest:4:1: ", one.words)));
    EXPECT_FALSE(Load()->available()) << one.function;
  }
}

// Its size is 0 then.
TEST_F(ForecastTest, ATypeThatIsMissingIsNoMistake) {
  const Forecast forecast = ForetellOne("lacks_type");
  EXPECT_TRUE(forecast.against.ok()) << forecast.against;
  EXPECT_TRUE(Load()->available()) << RefusalFor(*Load());
}

TEST_F(ForecastTest, WhoAsksFirstMayDoWithout) {
  const Forecast forecast = ForetellOne("asks_first");
  EXPECT_TRUE(forecast.against.ok()) << forecast.against;
  EXPECT_THAT(forecast.open,
              ElementsAre(HasSubstr("no 'task_struct.never_heard_of'")));
  EXPECT_TRUE(Load()->available()) << RefusalFor(*Load());
}

TEST_F(ForecastTest, FunctionsAreComparedByTheirPrototypes) {
  const Forecast forecast = ForetellOne("calls_it_wrongly", "wrong_prototype");
  EXPECT_THAT(
      std::string(forecast.against.message()),
      HasSubstr("'bpf_dynptr_is_null' takes or returns something else"));
  EXPECT_FALSE(Load()->available());
}

// --- Files that are none, or worse ------------------------------------------

class BtfFileTest : public ::testing::Test {
 protected:
  absl::Status Read(const std::string& path) {
    const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    EXPECT_TRUE(file.valid()) << path;
    return KernelTypes::OfFile(file.get()).status();
  }
  static std::string KernelsOwn() {
    std::ifstream file("/sys/kernel/btf/vmlinux", std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  // An ELF file with `btf` as its section .BTF, which claims `size` bytes.
  static std::string ElfWith(std::string_view btf, uint64_t size) {
    const std::string_view names("\0.BTF\0.names\0", 13);
    Elf64_Ehdr header{};
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_ident[EI_VERSION] = EV_CURRENT;
    header.e_version = EV_CURRENT;
    header.e_ehsize = sizeof(header);
    header.e_shentsize = sizeof(Elf64_Shdr);
    header.e_shnum = 3;
    header.e_shstrndx = 2;
    header.e_shoff = sizeof(header);
    Elf64_Shdr sections[3] = {};
    sections[1].sh_name = 1;
    sections[1].sh_type = SHT_PROGBITS;
    sections[1].sh_offset = sizeof(header) + sizeof(sections) + names.size();
    sections[1].sh_size = size;
    sections[2].sh_name = 6;
    sections[2].sh_type = SHT_STRTAB;
    sections[2].sh_offset = sizeof(header) + sizeof(sections);
    sections[2].sh_size = names.size();
    std::string file(reinterpret_cast<const char*>(&header), sizeof(header));
    file.append(reinterpret_cast<const char*>(sections), sizeof(sections));
    file.append(names);
    file.append(btf);
    return file;
  }

  TemporaryFolder folder_;
};

TEST_F(BtfFileTest, RawAndInAnElfFile) {
  const std::string btf = KernelsOwn();
  EXPECT_TRUE(Read(folder_.Write("raw", btf)).ok());
  EXPECT_TRUE(Read(folder_.Write("vmlinux", ElfWith(btf, btf.size()))).ok());
}

TEST_F(BtfFileTest, WhatIsNone) {
  EXPECT_TRUE(absl::IsInvalidArgument(Read("/dev/zero")));
  EXPECT_TRUE(absl::IsInvalidArgument(Read(folder_.path())));
  EXPECT_TRUE(absl::IsInvalidArgument(Read(folder_.Write("empty", ""))));
  EXPECT_TRUE(absl::IsInvalidArgument(Read(folder_.Write("text", "none"))));
  EXPECT_TRUE(absl::IsInvalidArgument(Read("/proc/self/exe")));
  const std::string fifo = folder_.path() + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_TRUE(absl::IsInvalidArgument(Read(fifo)));
}

TEST_F(BtfFileTest, WhatIsTooLarge) {
  const std::string btf = KernelsOwn().substr(0, 4096);
  for (const std::string& begin : {btf, ElfWith(btf, uint64_t{1} << 39)}) {
    const std::string path = folder_.Write("large", begin);
    ASSERT_EQ(truncate(path.c_str(), off_t{1} << 40), 0);  // a hole
    EXPECT_THAT(std::string(Read(path).message()), HasSubstr("64 MiB"));
  }
  // A section that is not all there.
  EXPECT_FALSE(Read(folder_.Write("cut", ElfWith(btf, 1 << 20))).ok());
}

// Cut off, and with bytes changed here and there. What libbpf lets pass is
// asked for everything all the same.
TEST_F(BtfFileTest, WhatIsDamaged) {
  const std::string btf = KernelsOwn();
  std::mt19937 random(7);
  int read = 0;
  for (int i = 0; i < 60; ++i) {
    std::string damaged = btf;
    if (i % 3 == 0) damaged.resize(random() % btf.size());
    for (int n = 0; n < (i % 3 == 0 ? 0 : 1 << (i % 12)); ++n) {
      damaged[24 + random() % (damaged.size() - 24)] =
          static_cast<char>(random());
    }
    const UniqueFd file(
        open(folder_.Write("btf", damaged).c_str(), O_RDONLY | O_CLOEXEC));
    const auto types = KernelTypes::OfFile(file.get());
    if (!types.ok()) continue;
    ++read;
    for (const char* need :
         {"kfunc bpf_iter_num_new", "helper map_lookup_elem", "map ARRAY",
          "field sk_buff.never_heard_of", "attach CGROUP_DEVICE"}) {
      (void)types->Check(*ParseNeed(need));
    }
  }
  EXPECT_GT(read, 0);
}

// A structure with itself inside, as no kernel has one.
TEST_F(BtfFileTest, AStructureWithinItself) {
  struct {
    btf_header header{};
    btf_type outer{};
    btf_member inner{};
    char strings[8] = "\0loop";
  } file;
  file.header.magic = BTF_MAGIC;
  file.header.version = BTF_VERSION;
  file.header.hdr_len = sizeof(btf_header);
  file.header.type_len = sizeof(btf_type) + sizeof(btf_member);
  file.header.str_off = file.header.type_len;
  file.header.str_len = sizeof(file.strings);
  file.outer.name_off = 1;
  file.outer.info = BTF_KIND_STRUCT << 24 | 1;
  file.outer.size = 8;
  file.inner.type = 1;
  const std::string bytes(reinterpret_cast<const char*>(&file), sizeof(file));
  const UniqueFd opened(
      open(folder_.Write("btf", bytes).c_str(), O_RDONLY | O_CLOEXEC));
  const auto types = KernelTypes::OfFile(opened.get());
  ASSERT_TRUE(types.ok()) << types.status();
  EXPECT_FALSE(types->Check(*ParseNeed("field loop.member")).ok());
}

}  // namespace
}  // namespace bpfgrant::daemon
