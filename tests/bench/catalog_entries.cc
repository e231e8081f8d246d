#include "tests/bench/catalog_entries.h"

#include <openssl/sha.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace bpfgrant::bench {
namespace {

std::string Read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string Digest(const std::string& bytes) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
         digest);
  return absl::BytesToHexString(
      {reinterpret_cast<const char*>(digest), sizeof(digest)});
}

}  // namespace

void AddSampler(test::Daemon& daemon, const std::string& name, uint32_t ready) {
  const std::filesystem::path catalog(BENCH_CATALOG);
  const std::string manifest = absl::StrReplaceAll(
      Read(catalog / "packet_sampler.manifest"),
      {{"\nname: \"packet_sampler\"", absl::StrCat("\nname: \"", name, "\"")},
       {"\"packet_sampler/1\"", absl::StrCat("\"", name, "/1\"")},
       {"\"packet_sampler.bpf.o\"", absl::StrCat("\"", name, ".bpf.o\"")},
       {"ready: 4", absl::StrCat("ready: ", ready)}});
  daemon.AddCatalogEntry(name, manifest, catalog / "packet_sampler.bpf.o");
}

void AddKernelBtf(test::Daemon& daemon, uint32_t ready) {
  const std::filesystem::path object(BENCH_KERNEL_BTF_OBJECT);
  daemon.AddCatalogEntry("kernel_btf",
                         absl::StrCat(R"(
name: "kernel_btf"
interface: "kernel_btf/1"
description: "Needs the kernel's BTF to be loaded"
object: "kernel_btf.bpf.o"
sha256: ")",
                                      Digest(Read(object)), R"("
program {
  function: "kernel_btf"
  type: SOCKET_FILTER
  delivery: DELIVERY_PROGRAM
  on_revoke: PASS
}
map {
  name: "samples"
  kind: HANDLE_KIND_RING_BUFFER
  handle: "samples"
  rights: RIGHTS_READ_WRITE
}
pool { ready: )",
                                      ready, " }\n"),
                         object);
}

}  // namespace bpfgrant::bench
