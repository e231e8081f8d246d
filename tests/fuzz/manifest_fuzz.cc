// The parser of manifests, what it checks, and that a manifest which is written
// anew is the same one.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "daemon/loader/inspection/manifest_text.h"
#include "daemon/loader/manifest.h"
#include "google/protobuf/util/message_differencer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bpfgrant::daemon;
  using google::protobuf::util::MessageDifferencer;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto manifest = Manifest::Parse("fuzz.manifest", "fuzz", text);
  if (!manifest.ok()) return 0;
  const auto again = Manifest::Parse("fuzz.manifest", "fuzz",
                                     WriteManifest((*manifest)->message(), {}));
  if (!again.ok() || !MessageDifferencer::Equals((*manifest)->message(),
                                                 (*again)->message())) {
    std::abort();
  }
  for (int i = 0; i < (*again)->message().variant_size(); ++i) {
    (*again)->Choose(i);
    (*again)->At("object");
  }
  return 0;
}
