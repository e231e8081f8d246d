// Objects that are broken in every way that their format allows: each is read
// or refused, in bounded time, and never takes the one who asks with it.

#include <elf.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daemon/loader/inspection/inspection.h"
#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

constexpr std::chrono::seconds kLong{60};

// An object whose parts can be changed where they stand.
class Object {
 public:
  explicit Object(std::string bytes) : bytes_(std::move(bytes)) {}

  Elf64_Ehdr& header() { return At<Elf64_Ehdr>(0); }
  size_t sections() { return header().e_shnum; }
  Elf64_Shdr& section(size_t index) {
    return At<Elf64_Shdr>(header().e_shoff + index * sizeof(Elf64_Shdr));
  }
  std::string NameOf(size_t index) {
    const Elf64_Shdr& names = section(header().e_shstrndx);
    return bytes_.data() + names.sh_offset + section(index).sh_name;
  }
  size_t Find(const std::string& name) {
    for (size_t i = 0; i < sections(); ++i) {
      if (NameOf(i) == name) return i;
    }
    ADD_FAILURE() << "no section " << name;
    return 0;
  }
  size_t FindType(uint32_t type) {
    for (size_t i = 0; i < sections(); ++i) {
      if (section(i).sh_type == type) return i;
    }
    ADD_FAILURE() << "no section of type " << type;
    return 0;
  }
  // Changes each record of a section.
  template <typename Record>
  void Change(size_t index, const std::function<void(Record&)>& change) {
    const Elf64_Shdr place = section(index);
    for (size_t at = 0; at + sizeof(Record) <= place.sh_size;
         at += sizeof(Record)) {
      change(At<Record>(place.sh_offset + at));
    }
  }

  std::string& bytes() { return bytes_; }

 private:
  template <typename Record>
  Record& At(size_t offset) {
    return *reinterpret_cast<Record*>(bytes_.data() + offset);
  }

  std::string bytes_;
};

class BrokenObjectTest : public ::testing::Test {
 protected:
  // What comes of it: "" of one that is read, or the refusal.
  std::string Inspect(const std::string& bytes, const std::string& how) {
    const auto found = InspectFile(folder_.Write("broken.bpf.o", bytes), kLong);
    if (found.ok()) return "";
    const v1::Reason reason = ReasonOf(found.status());
    EXPECT_TRUE(reason == v1::REASON_FILE_INVALID ||
                reason == v1::REASON_OBJECT_MISMATCH)
        << how << ": " << found.status();
    return std::string(found.status().message());
  }

  std::string Break(const std::string& how,
                    const std::function<void(Object&)>& change) {
    Object object(good_);
    change(object);
    return Inspect(object.bytes(), how);
  }
  void Refuses(const std::string& how,
               const std::function<void(Object&)>& change) {
    EXPECT_NE(Break(how, change), "") << how;
  }
  void Survives(const std::string& how,
                const std::function<void(Object&)>& change) {
    Break(how, change);
  }

  const std::string good_ = ObjectBytes("good");
  TemporaryFolder folder_;
};

TEST_F(BrokenObjectTest, NothingIsWrongWithTheWholeOne) {
  EXPECT_EQ(Inspect(good_, "good"), "");
}

TEST_F(BrokenObjectTest, WhatIsNoObject) {
  for (const std::string& text :
       {std::string(), std::string("x"), std::string(ELFMAG),
        std::string("#!/bin/sh\n"), std::string(1 << 20, '\0'),
        std::string(1 << 20, '\xff')}) {
    EXPECT_NE(Inspect(text, "text"), "");
  }
}

TEST_F(BrokenObjectTest, CutOff) {
  for (size_t size = 0; size < good_.size(); size += 1 + good_.size() / 64) {
    EXPECT_NE(Inspect(good_.substr(0, size), absl::StrCat(size)), "") << size;
  }
}

TEST_F(BrokenObjectTest, AnotherKindOfFile) {
  Refuses("32 bits",
          [](Object& o) { o.header().e_ident[EI_CLASS] = ELFCLASS32; });
  Refuses("no class", [](Object& o) { o.header().e_ident[EI_CLASS] = 0; });
  Refuses("other byte order",
          [](Object& o) { o.header().e_ident[EI_DATA] = ELFDATA2MSB; });
  Refuses("executable", [](Object& o) { o.header().e_type = ET_EXEC; });
  Refuses("x86", [](Object& o) { o.header().e_machine = EM_X86_64; });
}

TEST_F(BrokenObjectTest, TheTableOfSections) {
  Refuses("far away", [](Object& o) { o.header().e_shoff = ~0ULL; });
  Refuses("at the end",
          [](Object& o) { o.header().e_shoff = o.bytes().size() - 1; });
  Refuses("none", [](Object& o) { o.header().e_shnum = 0; });
  Survives("too many", [](Object& o) { o.header().e_shnum = 0xfeff; });
  Survives("entries of no size", [](Object& o) { o.header().e_shentsize = 0; });
  Refuses("names beyond", [](Object& o) { o.header().e_shstrndx = 0xfeff; });
  Refuses("names elsewhere",
          [](Object& o) { o.header().e_shstrndx = SHN_XINDEX; });
}

// Of each section, each field with values that reach beyond everything.
TEST_F(BrokenObjectTest, EachFieldOfEachSection) {
  using Field = std::function<void(Elf64_Shdr&, uint64_t)>;
  const std::vector<std::pair<const char*, Field>> fields = {
      {"offset", [](Elf64_Shdr& s, uint64_t v) { s.sh_offset = v; }},
      {"size", [](Elf64_Shdr& s, uint64_t v) { s.sh_size = v; }},
      {"type", [](Elf64_Shdr& s, uint64_t v) { s.sh_type = v; }},
      {"link", [](Elf64_Shdr& s, uint64_t v) { s.sh_link = v; }},
      {"info", [](Elf64_Shdr& s, uint64_t v) { s.sh_info = v; }},
      {"name", [](Elf64_Shdr& s, uint64_t v) { s.sh_name = v; }},
      {"entry", [](Elf64_Shdr& s, uint64_t v) { s.sh_entsize = v; }},
      {"alignment", [](Elf64_Shdr& s, uint64_t v) { s.sh_addralign = v; }},
  };
  const size_t count = Object(good_).sections();
  for (const auto& [name, set] : fields) {
    for (size_t i = 0; i < count; ++i) {
      for (const uint64_t value :
           {uint64_t{0}, uint64_t{8}, uint64_t{0x7fffffff}, ~uint64_t{0}}) {
        Survives(absl::StrCat(name, " of section ", i, ": ", value),
                 [&](Object& o) { set(o.section(i), value); });
      }
    }
  }
}

TEST_F(BrokenObjectTest, Symbols) {
  const auto each = [](std::function<void(Elf64_Sym&)> change) {
    return [change](Object& o) {
      o.Change<Elf64_Sym>(o.FindType(SHT_SYMTAB), change);
    };
  };
  Survives("no names", each([](Elf64_Sym& s) { s.st_name = 0; }));
  Survives("names beyond", each([](Elf64_Sym& s) { s.st_name = ~0U; }));
  Survives("no section", each([](Elf64_Sym& s) { s.st_shndx = 0xfeff; }));
  Survives("far away", each([](Elf64_Sym& s) { s.st_value = ~0ULL; }));
  Survives("large", each([](Elf64_Sym& s) { s.st_size = ~0ULL; }));
  Survives("no size", each([](Elf64_Sym& s) { s.st_size = 0; }));
  Survives("all functions", each([](Elf64_Sym& s) {
             s.st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC);
           }));
}

TEST_F(BrokenObjectTest, Relocations) {
  const auto each = [](std::function<void(Elf64_Rel&)> change) {
    return [change](Object& o) {
      for (size_t i = 0; i < o.sections(); ++i) {
        if (o.section(i).sh_type == SHT_REL) o.Change<Elf64_Rel>(i, change);
      }
    };
  };
  Refuses("of no symbol", each([](Elf64_Rel& r) { r.r_info = ~0ULL; }));
  Refuses("of no code", each([](Elf64_Rel& r) { r.r_offset = ~0ULL; }));
  Refuses("between instructions", each([](Elf64_Rel& r) { r.r_offset += 3; }));
  Survives("of the first symbol", each([](Elf64_Rel& r) { r.r_info = 1; }));
}

TEST_F(BrokenObjectTest, Code) {
  const auto fill = [](char byte) {
    return [byte](Object& o) {
      o.Change<char>(o.Find("socket"), [byte](char& c) { c = byte; });
    };
  };
  Survives("of ones", fill('\xff'));
  Survives("of zeros", fill('\0'));
  // 0x05 is a jump, 0x85 a call, 0x18 half an address.
  for (const char byte : {'\x05', '\x85', '\x18'}) {
    Survives(absl::StrCat("of ", static_cast<int>(byte)), fill(byte));
  }
  Refuses("half an instruction",
          [](Object& o) { o.section(o.Find("socket")).sh_size -= 4; });
}

TEST_F(BrokenObjectTest, Types) {
  for (const char* name : {".BTF", ".BTF.ext"}) {
    for (size_t at = 0; at < 48; ++at) {
      for (const char byte : {'\0', '\x7f', '\xff'}) {
        Survives(absl::StrCat(name, " byte ", at), [&](Object& o) {
          o.bytes()[o.section(o.Find(name)).sh_offset + at] = byte;
        });
      }
    }
    Survives(absl::StrCat(name, " of ones"), [&](Object& o) {
      o.Change<char>(o.Find(name), [](char& c) { c = '\xff'; });
    });
  }
  Refuses("maps without types",
          [](Object& o) { o.section(o.Find(".BTF")).sh_type = SHT_NOBITS; });
}

}  // namespace
}  // namespace bpfgrant::daemon
