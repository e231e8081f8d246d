// A catalog checked without a daemon: what is chosen, what is refused and
// where, and kernels' BTF that was made for the test.

#include <linux/bpf.h>
#include <bpf/btf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <seccomp.h>

#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daemon/loader/catalog_check.h"
#include "daemon/loader/confinement.h"
#include "daemon/loader/digest.h"
#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Variant {
  std::string name;
  std::string sample;  // of the tests' objects
  std::string need;
};

class CheckTest : public ::testing::Test {
 protected:
  void Write(const std::string& program, const std::vector<Variant>& variants) {
    std::string text;
    for (const Variant& variant : variants) {
      const std::string object = ObjectBytes(variant.sample);
      folder_.Write(variant.name + ".bpf.o", object);
      absl::StrAppend(&text, "variant { name: \"", variant.name,
                      "\" object: \"", variant.name, ".bpf.o\" sha256: \"",
                      Sha256({object}), "\"");
      if (!variant.need.empty()) {
        absl::StrAppend(&text, " need: \"", variant.need, "\"");
      }
      text += " }\n";
    }
    std::string manifest = SampleManifest(program, "");
    const size_t begin = manifest.find("object:");
    const size_t end = manifest.find("program {");
    folder_.Write(program + ".manifest",
                  manifest.replace(begin, end - begin, text));
  }

  absl::StatusOr<v1::CheckReply> Check(const std::string& btf = "") {
    CheckOptions options;
    options.folders = {folder_.path()};
    options.admission_files = {folder_.Write(
        "admission.conf", "kfunc: [\"default\", \"bpf_never_heard_of\"]")};
    options.btf_file = btf;
    return CheckCatalog(options);
  }
  // Of each variant "program/variant answer", where the answer is "chosen",
  // "fits" or a reason; of a program without them "program reason".
  std::vector<std::string> Answers(const std::string& btf = "") {
    const auto reply = Check(btf);
    EXPECT_TRUE(reply.ok()) << reply.status();
    std::vector<std::string> answers;
    if (!reply.ok()) return answers;
    for (const v1::CheckedProgram& program : reply->program()) {
      EXPECT_EQ(program.usable(), program.refusal().empty());
      for (const v1::CheckedVariant& one : program.variant()) {
        answers.push_back(absl::StrCat(program.name(), "/", one.name(), " ",
                                       one.chosen() ? "chosen"
                                       : one.fits()
                                           ? "fits"
                                           : v1::Reason_Name(one.reason())));
      }
      if (program.variant().empty()) {
        answers.push_back(absl::StrCat(program.name(), " ",
                                       v1::Reason_Name(program.reason())));
      }
    }
    return answers;
  }

  TemporaryFolder folder_;
};

TEST_F(CheckTest, AllVariantsAreTried) {
  REQUIRE_BPF();
  Write("sample", {{"future", "good", "helper never_heard_of"},
                   {"bad", "out_of_bounds"},
                   {"modern", "good"},
                   {"plain", "other_body"},
                   {"worse", "writes_gate"}});
  folder_.WriteProgram("single");
  EXPECT_THAT(Answers(),
              ElementsAre("sample/future REASON_KERNEL_TOO_OLD",
                          "sample/bad REASON_VERIFIER", "sample/modern chosen",
                          "sample/plain fits", "sample/worse REASON_VERIFIER",
                          "single/ chosen"));
  const auto reply = Check();
  ASSERT_TRUE(reply.ok());
  EXPECT_TRUE(reply->loaded());
  EXPECT_EQ(reply->unchecked(), "");
  const v1::CheckedProgram& sample = reply->program(0);
  EXPECT_THAT(sample.variant(0).refusal(),
              HasSubstr("sample.manifest:4:"));  // its need
  EXPECT_THAT(sample.variant(1).refusal(),
              HasSubstr("sample.manifest:5:23: the verifier refused it"));
  EXPECT_THAT(sample.variant(1).verifier_log(), HasSubstr("invalid access"));
  EXPECT_EQ(sample.variant(2).digest(), Sha256({ObjectBytes("good")}));
  EXPECT_EQ(sample.variant(2).function(), "sample");
}

// The daemon would not have it, whatever variant is meant.
TEST_F(CheckTest, AMistakeInOneVariantIsOneOfTheProgram) {
  REQUIRE_BPF();
  Write("sample", {{"one", "good"}, {"two", "good"}});
  folder_.Write("two.bpf.o", "something else");
  EXPECT_THAT(Answers(), ElementsAre("sample/one fits",
                                     "sample/two REASON_DIGEST_MISMATCH"));
  const auto reply = Check();
  ASSERT_TRUE(reply.ok());
  EXPECT_FALSE(reply->program(0).usable());
  EXPECT_THAT(reply->program(0).refusal(), HasSubstr("sample.manifest:5:"));
}

TEST_F(CheckTest, TheDaemonsAdmissionIsTheSame) {
  REQUIRE_BPF();
  Write("sample", {{"bad", "out_of_bounds"}, {"modern", "good"}});
  Write("none", {{"bad", "out_of_bounds"}, {"worse", "gate_unused"}});
  folder_.WriteProgram("ungated", "gate_unused");
  folder_.WriteProgram("single");
  const auto reply = Check();
  ASSERT_TRUE(reply.ok()) << reply.status();
  for (const v1::CheckedProgram& program : reply->program()) {
    const auto admitted = AdmitFrom(folder_.path(), program.name());
    EXPECT_EQ(program.usable(), admitted->available()) << program.name();
    EXPECT_EQ(program.reason(), ReasonFor(*admitted)) << program.name();
  }
  EXPECT_EQ(reply->program_size(), 4);
}

TEST_F(CheckTest, WhatIsNoProgram) {
  folder_.Write("broken.manifest", "name: 7");
  folder_.Write("masked.manifest", "");
  folder_.WriteProgram("single");
  EXPECT_THAT(Answers(),
              ElementsAre("broken REASON_FILE_INVALID", "single/ chosen"));
  CheckOptions options;
  options.folders = {folder_.path(), "/nowhere"};
  options.programs = {"single"};
  ASSERT_TRUE(CheckCatalog(options).ok());
  EXPECT_EQ(CheckCatalog(options)->program_size(), 1);
  for (const char* name : {"masked", "absent"}) {
    options.programs = {"single", name};
    EXPECT_EQ(ReasonOf(CheckCatalog(options).status()),
              v1::REASON_UNKNOWN_PROGRAM);
  }
}

TEST_F(CheckTest, EndsAtItsDeadline) {
  folder_.WriteProgram("single");
  CheckOptions options;
  options.folders = {folder_.path()};
  options.deadline = std::chrono::milliseconds(0);
  EXPECT_TRUE(absl::IsDeadlineExceeded(CheckCatalog(options).status()));
}

// As `Answers`, where bpf(2) does nothing but fail.
class NoBpfTest : public CheckTest {
 protected:
  v1::CheckReply CheckWithout(int error) {
    const auto bytes = RunConfined(
        [&]() -> absl::StatusOr<std::string> {
          const auto filter = seccomp_init(SCMP_ACT_ALLOW);
          seccomp_rule_add(filter, SCMP_ACT_ERRNO(error), SCMP_SYS(bpf), 0);
          if (seccomp_load(filter) != 0) return absl::InternalError("seccomp");
          const auto reply = Check();
          if (!reply.ok()) return reply.status();
          return reply->SerializeAsString();
        },
        std::chrono::seconds(30));
    EXPECT_TRUE(bytes.ok()) << bytes.status();
    v1::CheckReply reply;
    EXPECT_TRUE(bytes.ok() && reply.ParseFromString(*bytes));
    return reply;
  }
};

TEST_F(NoBpfTest, AKernelWithoutItTakesNothing) {
  REQUIRE_BPF();
  folder_.WriteProgram("single");
  const v1::CheckReply reply = CheckWithout(ENOSYS);
  ASSERT_EQ(reply.program_size(), 1);
  EXPECT_FALSE(reply.program(0).usable());
  EXPECT_EQ(reply.program(0).reason(), v1::REASON_KERNEL_TOO_OLD);
  EXPECT_THAT(reply.program(0).refusal(), HasSubstr("no bpf(2)"));
}

TEST_F(NoBpfTest, WhereItIsForbiddenTheBtfIsAsked) {
  REQUIRE_BPF();
  folder_.WriteProgram("single");
  const v1::CheckReply reply = CheckWithout(EPERM);
  ASSERT_EQ(reply.program_size(), 1);
  EXPECT_TRUE(reply.program(0).usable()) << reply.program(0).refusal();
  EXPECT_FALSE(reply.loaded());
  EXPECT_THAT(reply.unchecked(), HasSubstr("containers that forbid bpf(2)"));
}

// --- Other kernels -----------------------------------------------------------

// The BTF of a kernel with what the tests' sample needs, and no more.
class OtherKernel {
 public:
  OtherKernel() {
    Enumerate("bpf_prog_type",
              {{"SOCKET_FILTER", BPF_PROG_TYPE_SOCKET_FILTER}});
    Enumerate("bpf_map_type", {{"ARRAY", BPF_MAP_TYPE_ARRAY},
                               {"HASH", BPF_MAP_TYPE_HASH},
                               {"RINGBUF", BPF_MAP_TYPE_RINGBUF}});
    Enumerate("bpf_func_id", {{"map_lookup_elem", BPF_FUNC_map_lookup_elem}});
  }
  void Enumerate(const char* name,
                 const std::vector<std::pair<const char*, int>>& values) {
    btf__add_enum(get(), name, 4);
    for (const auto& [word, value] : values) {
      btf__add_enum_value(get(), word, value);
    }
  }
  btf* get() { return types_.get(); }
  std::string Write(const TemporaryFolder& folder) {
    uint32_t size = 0;
    const void* bytes = btf__raw_data(get(), &size);
    return folder.Write("kernel.btf", {static_cast<const char*>(bytes), size});
  }

 private:
  std::unique_ptr<btf, void (*)(btf*)> types_{btf__new_empty(), btf__free};
};

TEST_F(CheckTest, AnotherKernelIsJudgedByItsBtf) {
  Write("sample", {{"modern", "updates_gate"}, {"plain", "good"}});
  OtherKernel kernel;
  const std::string btf = kernel.Write(folder_);
  // The kernel that runs this one would refuse it for what it does.
  EXPECT_THAT(Answers(btf), ElementsAre("sample/modern REASON_KERNEL_TOO_OLD",
                                        "sample/plain chosen"));
  const auto reply = Check(btf);
  ASSERT_TRUE(reply.ok());
  EXPECT_FALSE(reply->loaded());
  EXPECT_EQ(reply->kernel(), btf);
  EXPECT_THAT(reply->unchecked(), HasSubstr("the verifier"));
  EXPECT_THAT(reply->program(0).variant(0).refusal(),
              HasSubstr("the kernel has no helper 'map_update_elem'"));
}

TEST_F(CheckTest, AnotherKernelsTypesOfMapsAndPrograms) {
  folder_.WriteProgram("filter");
  folder_.WriteProgram("steer", "steer");
  const std::string btf = OtherKernel().Write(folder_);
  const auto reply = Check(btf);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_TRUE(reply->program(0).usable()) << reply->program(0).refusal();
  EXPECT_THAT(reply->program(1).refusal(),
              HasSubstr("no programs of type sk_reuseport"));
}

// The program looks whether there is one, and so may do without.
TEST_F(CheckTest, AnotherKernelsFunctions) {
  const auto write = [this](const std::string& function) {
    const std::string object = ObjectBytes("several_programs");
    folder_.Write("sample.bpf.o", object);
    folder_.Write("sample.manifest",
                  SampleManifest("sample", object, "function: \"sample\"",
                                 absl::StrCat("function: \"", function, "\"")) +
                      "map { name: \"extra\" kind: HANDLE_KIND_HASH }\n");
  };
  const auto open = [this](OtherKernel& kernel) {
    const auto reply = Check(kernel.Write(folder_));
    EXPECT_TRUE(reply.ok() && reply->program(0).usable());
    return std::vector<std::string>(reply->program(0).variant(0).open().begin(),
                                    reply->program(0).variant(0).open().end());
  };
  OtherKernel without, changed, with;
  const int number = btf__add_int(changed.get(), "int", 4, BTF_INT_SIGNED);
  for (OtherKernel* kernel : {&changed, &with}) {
    if (kernel == &with) btf__add_int(with.get(), "int", 4, BTF_INT_SIGNED);
    btf__add_func_proto(kernel->get(), number);
    if (kernel == &with) btf__add_func_param(with.get(), "one", number);
    btf__add_func(kernel->get(), "bpf_never_heard_of", BTF_FUNC_STATIC,
                  number + 1);
  }
  write("asks_first");
  EXPECT_THAT(open(without),
              ElementsAre("the kernel has no function 'bpf_never_heard_of'"));
  EXPECT_THAT(open(changed),
              ElementsAre(HasSubstr("takes or returns something else")));
  EXPECT_THAT(open(with), ElementsAre());
  // This one does not.
  write("too_new");
  EXPECT_THAT(Answers(without.Write(folder_)),
              ElementsAre("sample/ REASON_KERNEL_TOO_OLD"));
  EXPECT_THAT(Answers(with.Write(folder_)), ElementsAre("sample/ chosen"));
}

TEST_F(CheckTest, RubbishForAKernel) {
  folder_.WriteProgram("single");
  EXPECT_TRUE(absl::IsInvalidArgument(
      Check(folder_.Write("rubbish", std::string(1 << 20, '\x9f'))).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Check("/nowhere").status()));
}

// Unnamed structures in unnamed structures, each many times over: there is no
// end to looking for a member.
TEST_F(CheckTest, AKernelThatTakesForEverIsGivenUp) {
  Write("sample", {{"modern", "good", "field maze.exit"}});
  OtherKernel kernel;
  int inner = btf__add_struct(kernel.get(), nullptr, 4);
  for (int depth = 0; depth < 12; ++depth) {
    const int outer =
        btf__add_struct(kernel.get(), depth == 11 ? "maze" : nullptr, 4000);
    for (int i = 0; i < 1000; ++i) {
      btf__add_field(kernel.get(), nullptr, inner, 0, 0);
    }
    inner = outer;
  }
  CheckOptions options;
  options.folders = {folder_.path()};
  options.btf_file = kernel.Write(folder_);
  options.deadline = std::chrono::milliseconds(500);
  EXPECT_TRUE(absl::IsDeadlineExceeded(CheckCatalog(options).status()));
}

}  // namespace
}  // namespace bpfgrant::daemon
