#include "daemon/loader/inspection/manifest_text.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"

namespace bpfgrant::daemon {
namespace {

using google::protobuf::FieldDescriptor;

// The text of one field, or of one element.
std::string WriteField(const v1::Manifest& manifest,
                       const FieldDescriptor* field, int index) {
  v1::Manifest one = manifest;
  const auto* reflection = one.GetReflection();
  std::vector<const FieldDescriptor*> all;
  reflection->ListFields(one, &all);
  for (const FieldDescriptor* other : all) {
    if (other != field) reflection->ClearField(&one, other);
  }
  if (field->is_repeated()) {
    reflection->SwapElements(&one, field, 0, index);
    while (reflection->FieldSize(one, field) > 1) {
      reflection->RemoveLast(&one, field);
    }
  }
  std::string text;
  google::protobuf::TextFormat::PrintToString(one, &text);
  return text;
}

// What an object names itself is in remarks, and must not begin a line.
std::string OneLine(std::string text) {
  std::ranges::replace_if(text, absl::ascii_iscntrl, '_');
  return text;
}

void Append(const std::string& field, const Remarks& remarks,
            std::string& text) {
  for (const std::string& line : remarks.before) {
    absl::StrAppend(&text, "# ", OneLine(line), "\n");
  }
  if (remarks.inside.empty()) {
    text += field;
    return;
  }
  const size_t end = field.rfind('}');
  text += field.substr(0, end);
  for (const std::string& line : remarks.inside) {
    absl::StrAppend(&text, "  ", OneLine(line), "\n");
  }
  text += field.substr(end);
}

}  // namespace

std::string WriteManifest(const v1::Manifest& manifest,
                          const AllRemarks& remarks) {
  std::vector<const FieldDescriptor*> fields;
  manifest.GetReflection()->ListFields(manifest, &fields);
  std::string text;
  for (const FieldDescriptor* field : fields) {
    const int count = field->is_repeated()
                          ? manifest.GetReflection()->FieldSize(manifest, field)
                          : 1;
    const bool is_message = field->message_type() != nullptr;
    if (is_message && !text.empty()) text += "\n";
    for (int i = 0; i < count; ++i) {
      const auto found = remarks.find({field->name(), i});
      Append(WriteField(manifest, field, i),
             found == remarks.end() ? Remarks() : found->second, text);
    }
  }
  return text;
}

}  // namespace bpfgrant::daemon
