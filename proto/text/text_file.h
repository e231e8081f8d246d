// Text-format protobuf files of the administrator's, with the place of every
// complaint. The one parser for configuration, policy and manifests.
//
// It reads no file: whoever has the bytes (and has checked where they come
// from) gives them.

#ifndef PROTO_TEXT_TEXT_FILE_H_
#define PROTO_TEXT_TEXT_FILE_H_

#include <compare>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "google/protobuf/message.h"

namespace bpfgrant {

// Where something stands in a file. Both 1-based; 0: the file as a whole.
// Columns are bytes; a tab goes on to the next multiple of eight.
struct Place {
  int line = 0;
  int column = 0;
  auto operator<=>(const Place&) const = default;
};

struct PlaceTree;

class TextFile {
 public:
  // `name` is what messages call the file.
  explicit TextFile(std::string name);
  ~TextFile();
  TextFile(TextFile&&) noexcept;
  TextFile& operator=(TextFile&&) noexcept;

  const std::string& name() const { return name_; }

  // Parses `bytes` into `message`, which is empty after an error. Unknown
  // fields and enum values, fields given twice, NUL bytes, text that is not
  // UTF-8, strings with control characters in them, and files over
  // kMaxTextFileBytes are errors: REASON_FILE_INVALID (or REASON_TOO_LARGE)
  // with "file:line:column: what", of the first one only.
  absl::Status Parse(std::string_view bytes,
                     google::protobuf::Message& message);

  // Where field `field` of the parsed top message stands. With `index` >= 0,
  // that element of a repeated field; the place of the file as a whole if
  // absent.
  Place Where(std::string_view field, int index = -1) const;
  // The same one level down: field `inner` of element `index` of `field`
  // (index -1 for a field that is not repeated). Falls back on the place of the
  // outer field if the inner one is absent.
  Place Where(std::string_view field, int index, std::string_view inner,
              int inner_index = -1) const;

  // REASON_FILE_INVALID: "file:line:column: what".
  absl::Status Complain(Place place, std::string_view what) const;

 private:
  std::string name_;
  std::unique_ptr<PlaceTree> tree_;  // of the last text that parsed
};

}  // namespace bpfgrant

#endif  // PROTO_TEXT_TEXT_FILE_H_
