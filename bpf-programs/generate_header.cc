// bpfgrant_generate_header MANIFEST HEADER
//
// Writes the C header that clients of an approved program compile against, the
// same text that `bpfgrantctl describe` shows. A build tool: it is not
// installed, and loads nothing into the kernel.

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "daemon/loader/interface.h"
#include "daemon/loader/loop_link.h"
#include "daemon/loader/loop_manifest.h"
#include "daemon/loader/manifest.h"
#include "daemon/loader/object.h"
#include "daemon/loader/object_check.h"

namespace bpfgrant::daemon {
namespace {

absl::StatusOr<std::string> Read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  if (!file) return absl::NotFoundError(absl::StrCat(path.string(), "?"));
  return bytes.str();
}

absl::Status Generate(const std::filesystem::path& manifest_path,
                      const std::filesystem::path& header_path) {
  absl::StatusOr<std::string> text = Read(manifest_path);
  if (!text.ok()) return text.status();
  const auto manifest =
      Manifest::Parse(manifest_path, manifest_path.stem().string(), *text);
  if (!manifest.ok()) return manifest.status();
  const v1::Manifest& message = (*manifest)->message();
  // All have the same interface.
  if (!message.variant().empty()) (*manifest)->Choose(0);
  absl::StatusOr<std::string> bytes =
      Read(manifest_path.parent_path() / message.object());
  if (!bytes.ok()) return bytes.status();

  LibbpfLog log;
  if (IsLoop(message)) {
    const auto linked = LinkLoop(*bytes);
    if (!linked.ok()) return linked.status();
    bytes = std::string(linked->view());
  }
  const auto object = OpenObject(*bytes, message.name());
  if (!object.ok()) return object.status();
  if (auto status = CheckObject(object->get(), **manifest); !status.ok()) {
    return status;
  }
  const auto interface = DescribeInterface(object->get(), **manifest);
  if (!interface.ok()) return interface.status();

  std::filesystem::create_directories(header_path.parent_path());
  std::ofstream header(header_path, std::ios::binary | std::ios::trunc);
  header << interface->header << std::flush;
  if (!header) {
    return absl::InternalError(
        absl::StrCat(header_path.string(), ": cannot be written"));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace bpfgrant::daemon

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s MANIFEST HEADER\n", argv[0]);
    return 2;
  }
  const absl::Status status = bpfgrant::daemon::Generate(argv[1], argv[2]);
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
    return 1;
  }
  return 0;
}
