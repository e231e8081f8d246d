#include "daemon/loader/interface.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "daemon/loader/safe_file.h"
#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

// What bpfgrantctl does offline: nothing is loaded.
std::unique_ptr<Program> InspectVariant(const std::string& variant,
                                        const std::string& from = "",
                                        const std::string& to = "") {
  const TemporaryFolder folder;
  const std::string object = ObjectBytes(variant);
  folder.Write("sample.bpf.o", object);
  const std::string manifest = SampleManifest("sample", object, from, to);
  const auto directory = SafeDirectory::Open(folder.path(), {});
  EXPECT_TRUE(directory.ok()) << directory.status();
  return Inspect(*directory, "sample.manifest", manifest, {});
}

std::string HashOf(const std::string& variant, const std::string& from = "",
                   const std::string& to = "") {
  const auto program = InspectVariant(variant, from, to);
  EXPECT_TRUE(program->available()) << RefusalFor(*program);
  return program->entry.description().interface_hash();
}

TEST(InterfaceTest, HashChangesWithTheEventOnly) {
  const std::string hash = HashOf("good");
  EXPECT_EQ(hash.size(), 64u);
  EXPECT_EQ(HashOf("good"), hash);
  EXPECT_EQ(HashOf("other_body"), hash);
  EXPECT_EQ(HashOf("answers_nothing"), hash);
  EXPECT_NE(HashOf("wider_event"), hash);
  EXPECT_NE(HashOf("other_name"), hash);
  EXPECT_NE(HashOf("other_type"), hash);
}

TEST(InterfaceTest, HashChangesWithTheManifestsHandles) {
  const std::string hash = HashOf("good");
  EXPECT_NE(HashOf("good", "handle: \"config\"", "handle: \"settings\""), hash);
  EXPECT_NE(HashOf("good", "rights: RIGHTS_WRITE", "rights: RIGHTS_READ"),
            hash);
  EXPECT_NE(HashOf("good", "sample/1", "sample/2"), hash);
  EXPECT_EQ(HashOf("good", "a sample", "another sentence"), hash);
  EXPECT_EQ(HashOf("good", "on_revoke: DROP", "on_revoke: PASS"), hash);
}

TEST(InterfaceTest, UnknownStructure) {
  const auto program =
      InspectVariant("good", "\"sample_event\"", "\"sample_evert\"");
  EXPECT_EQ(ReasonFor(*program), v1::REASON_OBJECT_MISMATCH);
  EXPECT_NE(RefusalFor(*program).find("sample.manifest:18:3: "),
            std::string::npos)
      << RefusalFor(*program);
  EXPECT_NE(RefusalFor(*program).find("sample_evert"), std::string::npos);
}

bool Compiles(const TemporaryFolder& folder, const std::string& command,
              const std::string& file) {
  return std::system(absl::StrCat(command, " -Wall -Wextra -Werror -pedantic ",
                                  "-fsyntax-only -I", folder.path(), " ",
                                  folder.path(), "/", file, " 2>&1")
                         .c_str()) == 0;
}

TEST(InterfaceTest, HeaderCompilesAsCAndAsCxx) {
  const auto program = InspectVariant("good");
  const std::string& header = program->entry.description().header();
  EXPECT_NE(header.find("#define SAMPLE_INTERFACE \"sample/1\""),
            std::string::npos);
  EXPECT_EQ(header.find("typedef"), std::string::npos) << header;
  const TemporaryFolder folder;
  folder.Write("sample.h", header);
  const std::string use = absl::StrCat(
      "#include \"sample.h\"\n#include \"sample.h\"\n"
      "int main(void) {\n"
      "  struct sample_event event;\n  struct sample_config config;\n"
      "  event.kind = SAMPLE_SECOND;\n  event.inner[1].known = true;\n"
      "  event.address = 0;\n  config.flags = 0;\n"
      "  return sizeof(event) == 40 && sizeof(SAMPLE_INTERFACE_HASH) == 65 &&\n"
      "         event.inner[1].known && event.kind && config.flags ? 0 : 1;\n"
      "}\n");
  folder.Write("use.c", use);
  folder.Write("use.cc", use);
  EXPECT_TRUE(Compiles(folder, TEST_C_COMPILER " -std=c11", "use.c"));
  EXPECT_TRUE(Compiles(folder, TEST_CXX_COMPILER " -std=c++17", "use.cc"));
  EXPECT_TRUE(Compiles(folder, TEST_CXX_COMPILER " -std=c++20", "use.cc"));
}

TEST(InterfaceTest, DescribesHandlesInTheManifestsOrder) {
  const auto program = InspectVariant("good");
  const v1::DescribeReply& description = program->entry.description();
  ASSERT_EQ(description.handle_size(), 4);
  const v1::Handle& events = description.handle(0);
  EXPECT_EQ(events.name(), "events");
  EXPECT_EQ(events.max_entries(), 64u * 1024);
  EXPECT_TRUE(events.mappable());
  const v1::Handle& config = description.handle(1);
  EXPECT_EQ(config.value_size(), 8u);
  EXPECT_TRUE(config.mappable());
  EXPECT_FALSE(description.handle(2).mappable());
  EXPECT_EQ(description.handle(3).rights(), v1::RIGHTS_WRITE);
  EXPECT_GT(description.instance_bytes(), 64u * 1024);
  EXPECT_NE(description.irrevocable().find("answers DROP"), std::string::npos);
}

}  // namespace
}  // namespace bpfgrant::daemon
