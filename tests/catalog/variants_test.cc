// Variants of a program: the first that this kernel takes.

#include <fcntl.h>
#include <sys/resource.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "daemon/loader/admission.h"
#include "daemon/loader/catalog.h"
#include "daemon/loader/digest.h"
#include "daemon/loader/instance.h"
#include "daemon/loader/needs.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/wire/limits.h"
#include "proto/wire/unique_fd.h"
#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

using ::testing::HasSubstr;

struct Variant {
  std::string name;
  std::string sample;  // of the tests' objects
  std::vector<std::string> needs;
  std::string more;  // text
};

class VariantsTest : public ::testing::Test {
 protected:
  void SetUp() override { REQUIRE_BPF(); }

  void Write(const std::vector<Variant>& variants) {
    std::string text;
    for (const Variant& variant : variants) {
      const std::string object = ObjectBytes(variant.sample);
      const std::string file = variant.name + ".bpf.o";
      folder_.Write(file, object);
      absl::StrAppend(&text, "variant {\n  name: \"", variant.name,
                      "\"\n  object: \"", file, "\"\n  sha256: \"",
                      Sha256({object}), "\"\n", variant.more);
      for (const std::string& need : variant.needs) {
        absl::StrAppend(&text, "  need: \"", need, "\"\n");
      }
      text += "}\n";
    }
    // In the place of the object and its digest.
    std::string manifest = SampleManifest("sample", "");
    const size_t begin = manifest.find("object:");
    const size_t end = manifest.find("program {");
    folder_.Write("sample.manifest",
                  manifest.replace(begin, end - begin, text));
  }
  std::shared_ptr<const Program> Admit() {
    return AdmitFrom(folder_.path(), "sample");
  }
  // What became of each: "a chosen", "b -", "c verifier".
  static std::vector<std::string> Outcome(const Program& program) {
    std::vector<std::string> outcome;
    for (const auto& variant : program.entry.description().variant()) {
      outcome.push_back(absl::StrCat(variant.name(), " ",
                                     variant.chosen() ? "chosen"
                                     : !variant.tried()
                                         ? "-"
                                         : v1::Reason_Name(variant.reason())));
    }
    return outcome;
  }

  TemporaryFolder folder_;
};

TEST_F(VariantsTest, TheFirstThatLoadsIsUsed) {
  Write({{"modern", "good"}, {"plain", "other_body"}});
  const auto program = Admit();
  ASSERT_TRUE(program->available()) << RefusalFor(*program);
  EXPECT_THAT(Outcome(*program),
              ::testing::ElementsAre("modern chosen", "plain -"));
  EXPECT_EQ(program->entry.description().digest(),
            Sha256({ObjectBytes("good")}));
}

TEST_F(VariantsTest, WhatTheVerifierRefusesIsPassedOver) {
  Write({{"bad", "out_of_bounds"}, {"plain", "good"}});
  const auto program = Admit();
  ASSERT_TRUE(program->available()) << RefusalFor(*program);
  EXPECT_THAT(Outcome(*program),
              ::testing::ElementsAre("bad REASON_VERIFIER", "plain chosen"));
  EXPECT_THAT(program->entry.description().variant(0).refusal(),
              HasSubstr("sample.manifest:6:3: the verifier refused it"));
  // What is granted is the second one.
  EXPECT_EQ(program->object.view(), ObjectBytes("good"));
}

TEST_F(VariantsTest, WhatTheKernelHasNotGotIsNotEvenTried) {
  Write({{"future", "good", {"helper never_heard_of"}}, {"plain", "good"}});
  const auto program = Admit();
  ASSERT_TRUE(program->available()) << RefusalFor(*program);
  EXPECT_THAT(
      Outcome(*program),
      ::testing::ElementsAre("future REASON_KERNEL_TOO_OLD", "plain chosen"));
  EXPECT_THAT(program->entry.description().variant(0).refusal(),
              HasSubstr("sample.manifest:8:3: the kernel has no helper "
                        "'never_heard_of'"));
}

TEST_F(VariantsTest, WithNoneTheProgramIsUnavailableAndSaysAll) {
  Write({{"future", "good", {"map NEVER_HEARD_OF"}},
         {"bad", "out_of_bounds", {}}});
  folder_.WriteProgram("other");
  const auto program = Admit();
  EXPECT_FALSE(program->available());
  EXPECT_EQ(ReasonFor(*program), v1::REASON_VERIFIER);
  EXPECT_THAT(RefusalFor(*program), HasSubstr("no variant fits this kernel"));
  EXPECT_THAT(RefusalFor(*program), HasSubstr("future: "));
  EXPECT_THAT(RefusalFor(*program), HasSubstr("no map type 'NEVER_HEARD_OF'"));
  EXPECT_THAT(RefusalFor(*program), HasSubstr("bad: "));
  EXPECT_THAT(Outcome(*program),
              ::testing::ElementsAre("future REASON_KERNEL_TOO_OLD",
                                     "bad REASON_VERIFIER"));
  EXPECT_TRUE(AdmitFrom(folder_.path(), "other")->available());
}

TEST_F(VariantsTest, AllShowTheSameInterface) {
  Write({{"one", "good"}, {"two", "wider_event"}});
  const auto program = Admit();
  EXPECT_FALSE(program->available());
  EXPECT_EQ(ReasonFor(*program), v1::REASON_OBJECT_MISMATCH);
  EXPECT_THAT(RefusalFor(*program),
              HasSubstr("this variant shows clients something else"));
}

// A mistake in one that would not be used is one all the same.
TEST_F(VariantsTest, EachIsWhatWasApproved) {
  Write({{"one", "good"}, {"two", "good"}});
  folder_.Write("two.bpf.o", "something else");
  const auto program = Admit();
  EXPECT_FALSE(program->available());
  EXPECT_EQ(ReasonFor(*program), v1::REASON_DIGEST_MISMATCH);
  EXPECT_THAT(RefusalFor(*program), HasSubstr("sample.manifest:12:"));
}

TEST_F(VariantsTest, NothingIsVerifiedTwice) {
  Write({{"bad", "out_of_bounds"}, {"plain", "good"}});
  auto admission = Admission::Create({}, {});
  ASSERT_TRUE(admission.ok());
  for (int reload = 0; reload < 3; ++reload) {
    const auto catalog = Catalog::Read({folder_.path()}, *admission);
    ASSERT_TRUE(catalog.ok()) << catalog.status();
    ASSERT_NE(catalog->Find("sample"), nullptr);
    EXPECT_TRUE(catalog->Find("sample")->available());
    EXPECT_EQ(admission->trials(), 2);
  }
}

// With so few fds that loading fails here or there: it is the first one, or
// none for the time being, and never the second.
TEST_F(VariantsTest, AFailureThatMayPassChoosesNoLesserOne) {
  Write({{"modern", "good"}, {"plain", "other_body"}});
  auto admission = Admission::Create({}, {});
  ASSERT_TRUE(admission.ok());
  const auto folder = SafeDirectory::Open(folder_.path(), {});
  ASSERT_TRUE(folder.ok());
  const auto bytes = folder->Read("sample.manifest", kMaxTextFileBytes);
  ASSERT_TRUE(bytes.ok());
  // libbpf looks once a process what the kernel can do, and takes a failure for
  // an answer: as in the daemon, that is before fds run short.
  ASSERT_TRUE(Admit()->available());
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const UniqueFd next(open("/dev/null", O_RDONLY | O_CLOEXEC));
  int passing = 0;
  bool available = false;
  for (rlim_t more = 1; more < 64 && !available; ++more) {
    const rlimit few = {static_cast<rlim_t>(next.get()) + more,
                        before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
    const auto program =
        admission->Admit(*folder, "sample.manifest", bytes->view());
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    available = program->available();
    const std::vector<std::string> outcome = Outcome(*program);
    if (outcome.empty()) continue;  // not even the files could be read
    EXPECT_THAT(outcome[0], available ? "modern chosen" : "modern REASON_BUSY");
    EXPECT_EQ(outcome[1], "plain -");
    if (available) continue;
    ++passing;
    EXPECT_THAT(RefusalFor(*program), HasSubstr("a reload may mend"));
  }
  EXPECT_TRUE(available);
  EXPECT_GT(passing, 0);
}

TEST_F(VariantsTest, MistakesInTheText) {
  const auto refusal = [this](const std::vector<Variant>& variants) {
    Write(variants);
    const auto program = Admit();
    EXPECT_EQ(ReasonFor(*program), v1::REASON_FILE_INVALID);
    return RefusalFor(*program);
  };
  EXPECT_THAT(refusal({{"Big", "good"}}), HasSubstr(":5:3: a variant's name"));
  EXPECT_THAT(refusal({{"one", "good"}, {"one", "good"}}),
              HasSubstr(":10:3: variant 'one' is named twice"));
  EXPECT_THAT(refusal({{"one", "good", {}, "  function: \"a b\"\n"}}),
              HasSubstr(":8:3: function is"));
  for (const char* need :
       {"", "helper", "helper ", "kernel 6.1", "helper a b", "field sk_buff",
        "field sk_buff.", "field .hash", "map 1", "kfunc a.b"}) {
    EXPECT_THAT(refusal({{"one", "good", {need}}}), HasSubstr(": a need is"))
        << need;
  }
  EXPECT_THAT(
      refusal({{"one", "good", std::vector<std::string>(17, "map ARRAY")}}),
      HasSubstr("at most 16 needs"));
  std::vector<Variant> many;
  for (int i = 0; i < 9; ++i) many.push_back({absl::StrCat("v", i), "good"});
  EXPECT_THAT(refusal(many), HasSubstr("at most 8 variants"));
  // Both are one too many.
  Write({{"one", "good"}});
  std::string text = SampleManifest("sample", "");
  folder_.Write(
      "sample.manifest",
      absl::StrCat(text, "variant { name: \"one\" object: \"o\" }\n"));
  EXPECT_THAT(RefusalFor(*Admit()), HasSubstr("object stands in each variant"));
}

TEST(NeedsTest, AsTheKernelHasIt) {
  const auto kernel = KernelTypes::OfThisKernel();
  ASSERT_TRUE(kernel.ok()) << kernel.status();
  const auto has = [&](const char* text) {
    const auto need = ParseNeed(text);
    EXPECT_TRUE(need.has_value()) << text;
    return need.has_value() && kernel->Check(*need).ok();
  };
  EXPECT_TRUE(has("helper map_lookup_elem"));
  EXPECT_FALSE(has("helper BPF_FUNC_map_lookup_elem"));
  EXPECT_TRUE(has("map ARRAY"));
  EXPECT_FALSE(has("map ARRAYS"));
  EXPECT_TRUE(has("attach CGROUP_INET_INGRESS"));
  EXPECT_FALSE(has("attach NOWHERE"));
  EXPECT_TRUE(has("kfunc bpf_obj_new_impl"));
  EXPECT_FALSE(has("kfunc bpf_no_such_function"));
  EXPECT_TRUE(has("field sk_buff.len"));
  // A member of an unnamed union inside.
  EXPECT_TRUE(has("field sk_buff.rbnode"));
  EXPECT_FALSE(has("field sk_buff.no_such_member"));
  EXPECT_FALSE(has("field no_such_structure.len"));
}

TEST(NeedsTest, OfAnotherKernelsFile) {
  const UniqueFd file(open("/sys/kernel/btf/vmlinux", O_RDONLY | O_CLOEXEC));
  const auto kernel = KernelTypes::OfFile(file.get());
  ASSERT_TRUE(kernel.ok()) << kernel.status();
  EXPECT_TRUE(kernel->Check(*ParseNeed("map ARRAY")).ok());
}

}  // namespace
}  // namespace bpfgrant::daemon
