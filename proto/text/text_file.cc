#include "proto/text/text_file.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"
#include "proto/refusal/refusal.h"
#include "proto/text/place_tree.h"
#include "proto/wire/limits.h"

namespace bpfgrant {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// Our deepest file nests three messages. The parser recurses, so there must be
// an end to it.
constexpr int kMaxDepth = 16;

// As protobuf's tokenizer counts, so that all places are of one kind.
constexpr int kTabWidth = 8;

struct Complaint {
  Place place;
  std::string what;
};

// What the parser says only after it has gone on to the next token, which may
// be on another line. (The wording is protobuf's; were it another, the place
// would be a token late.)
constexpr std::string_view kSaidLate[] = {
    "Invalid value for boolean field",
    "Message type \"",
    "Non-repeated field",
    "Unknown enumeration value",
};

class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, google::protobuf::io::ColumnNumber column,
                const std::string& message) override {
    if (first_.has_value()) return;
    // 0-based, and -1 for the file as a whole.
    first_ = Complaint{{line + 1, line < 0 ? 0 : column + 1}, message};
  }
  const std::optional<Complaint>& first() const { return first_; }

 private:
  std::optional<Complaint> first_;
};

Place PlaceOfByte(std::string_view bytes, size_t offset) {
  Place place{1, 1};
  for (const char byte : bytes.substr(0, offset)) {
    if (byte == '\n') {
      place = {place.line + 1, 1};
    } else if (byte == '\t') {
      place.column += kTabWidth - (place.column - 1) % kTabWidth;
    } else {
      ++place.column;
    }
  }
  return place;
}

// The length of the UTF-8 sequence that `text` begins with; 0 if that is none.
// Neither overlong forms nor surrogates are any (RFC 3629).
size_t SequenceLength(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  if (lead == 0xE0 && byte(1) < 0xA0) return 0;
  if (lead == 0xED && byte(1) > 0x9F) return 0;
  if (lead == 0xF0 && byte(1) < 0x90) return 0;
  if (lead == 0xF4 && byte(1) > 0x8F) return 0;
  return length;
}

// Where UTF-8 ends to be that; npos: nowhere.
size_t FindInvalidUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const size_t length = SequenceLength(text.substr(i));
    if (length == 0) return i;
    i += length;
  }
  return std::string_view::npos;
}

std::optional<Complaint> CheckBytes(std::string_view bytes) {
  const size_t nul = bytes.find('\0');
  const size_t invalid = FindInvalidUtf8(bytes);
  if (nul == std::string_view::npos && invalid == std::string_view::npos) {
    return std::nullopt;
  }
  // npos is the largest number there is.
  if (nul < invalid) return Complaint{PlaceOfByte(bytes, nul), "a NUL byte"};
  return Complaint{PlaceOfByte(bytes, invalid), "not UTF-8"};
}

// Finds what the parser lets pass: escapes in strings that make them other than
// a line of UTF-8, numbers that an enum has no name for, and fields given twice
// where the first value was the default.
class ValueCheck {
 public:
  std::optional<Complaint> Run(const Message& message, const PlaceTree& tree) {
    CheckMessage(message, tree);
    return std::move(first_);
  }

 private:
  void CheckMessage(const Message& message, const PlaceTree& tree) {
    for (const auto& [name, places] : tree.fields) {
      const FieldDescriptor* field =
          message.GetDescriptor()->FindFieldByName(name);
      // An extension or an Any, which has no such name.
      if (field == nullptr) continue;
      if (!field->is_repeated() && places.size() > 1) {
        Add(places[1].place, absl::StrCat("field '", name, "' given twice"));
      }
      // The entries of a map have an order of their own.
      if (field->is_map()) continue;
      const int count = field->is_repeated()
                            ? message.GetReflection()->FieldSize(message, field)
                            : 1;
      for (int i = 0; i < count && i < static_cast<int>(places.size()); ++i) {
        CheckElement(message, *field, i, places[i]);
      }
    }
  }

  void CheckElement(const Message& message, const FieldDescriptor& field, int i,
                    const PlaceTree& tree) {
    const Reflection& reflection = *message.GetReflection();
    const bool repeated = field.is_repeated();
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
        CheckString(repeated ? reflection.GetRepeatedString(message, &field, i)
                             : reflection.GetString(message, &field),
                    field, tree.place);
        break;
      case FieldDescriptor::CPPTYPE_ENUM:
        CheckEnum(repeated ? reflection.GetRepeatedEnumValue(message, &field, i)
                           : reflection.GetEnumValue(message, &field),
                  field, tree.place);
        break;
      case FieldDescriptor::CPPTYPE_MESSAGE:
        CheckMessage(repeated
                         ? reflection.GetRepeatedMessage(message, &field, i)
                         : reflection.GetMessage(message, &field),
                     tree);
        break;
      default:
        break;
    }
  }

  void CheckString(std::string_view value, const FieldDescriptor& field,
                   Place place) {
    if (field.type() == FieldDescriptor::TYPE_BYTES) return;
    if (FindInvalidUtf8(value) != std::string_view::npos) {
      Add(place, absl::StrCat("field '", field.name(), "' is not UTF-8"));
    }
    for (const char byte : value) {
      if (static_cast<uint8_t>(byte) < 0x20 || byte == 0x7F) {
        Add(place, absl::StrCat("field '", field.name(),
                                "' has a control character in it"));
        return;
      }
    }
  }

  void CheckEnum(int value, const FieldDescriptor& field, Place place) {
    if (field.enum_type()->FindValueByNumber(value) != nullptr) return;
    Add(place,
        absl::StrCat("field '", field.name(), "' knows no value ", value));
  }

  // Keeps what stands first in the file.
  void Add(Place place, std::string what) {
    if (first_.has_value() && first_->place <= place) return;
    first_ = Complaint{place, std::move(what)};
  }

  std::optional<Complaint> first_;
};

}  // namespace

TextFile::TextFile(std::string name) : name_(std::move(name)) {}
TextFile::~TextFile() = default;
TextFile::TextFile(TextFile&&) noexcept = default;
TextFile& TextFile::operator=(TextFile&&) noexcept = default;

absl::Status TextFile::Parse(std::string_view bytes, Message& message) {
  message.Clear();
  tree_.reset();
  if (bytes.size() > kMaxTextFileBytes) {
    return Refuse(v1::REASON_TOO_LARGE,
                  absl::StrCat(name_, ": ", bytes.size(), " bytes, where ",
                               kMaxTextFileBytes, " are the most"));
  }
  std::optional<Complaint> complaint = CheckBytes(bytes);
  if (complaint.has_value()) {
    return Complain(complaint->place, complaint->what);
  }

  FirstError errors;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  parser.SetRecursionLimit(kMaxDepth);
  google::protobuf::io::ArrayInputStream stream(bytes.data(),
                                                static_cast<int>(bytes.size()));
  if (!parser.Parse(&stream, &message)) {
    message.Clear();
    complaint = errors.first();
    if (!complaint.has_value()) return Complain({}, "does not parse");
    for (const std::string_view beginning : kSaidLate) {
      if (complaint->what.starts_with(beginning)) {
        complaint->place = TokenBefore(bytes, complaint->place);
      }
    }
    return Complain(complaint->place, complaint->what);
  }

  auto tree = std::make_unique<PlaceTree>(ReadPlaces(bytes));
  complaint = ValueCheck().Run(message, *tree);
  if (complaint.has_value()) {
    message.Clear();
    return Complain(complaint->place, complaint->what);
  }
  tree_ = std::move(tree);
  return absl::OkStatus();
}

Place TextFile::Where(std::string_view field, int index) const {
  const PlaceTree* found = tree_ ? tree_->Find(field, index) : nullptr;
  return found != nullptr ? found->place : Place{};
}

Place TextFile::Where(std::string_view field, int index, std::string_view inner,
                      int inner_index) const {
  const PlaceTree* outer = tree_ ? tree_->Find(field, index) : nullptr;
  if (outer == nullptr) return Place{};
  const PlaceTree* found = outer->Find(inner, inner_index);
  return found != nullptr ? found->place : outer->place;
}

absl::Status TextFile::Complain(Place place, std::string_view what) const {
  std::string message = name_;
  if (place.line > 0) absl::StrAppend(&message, ":", place.line);
  if (place.line > 0 && place.column > 0) {
    absl::StrAppend(&message, ":", place.column);
  }
  return Refuse(v1::REASON_FILE_INVALID,
                absl::StrCat(message, ": ", std::string(what)));
}

}  // namespace bpfgrant
