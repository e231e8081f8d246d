#include "daemon/loader/inspection/message_diff.h"

#include <map>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/text_format.h"

namespace bpfgrant::daemon {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::TextFormat;

// The field by which an element is told from the others; null: none.
const FieldDescriptor* KeyOf(const FieldDescriptor* field) {
  if (!field->is_repeated() || field->message_type() == nullptr) return nullptr;
  for (const char* name : {"name", "function"}) {
    const FieldDescriptor* key = field->message_type()->FindFieldByName(name);
    if (key != nullptr && key->type() == FieldDescriptor::TYPE_STRING) {
      return key;
    }
  }
  return nullptr;
}

bool IsSet(const Message& message, const FieldDescriptor* field) {
  return field->is_repeated()
             ? message.GetReflection()->FieldSize(message, field) > 0
             : message.GetReflection()->HasField(message, field);
}

std::string ValueOf(const Message& message, const FieldDescriptor* field,
                    int index) {
  if (field->type() == FieldDescriptor::TYPE_STRING) {
    const auto* reflection = message.GetReflection();
    return index < 0 ? reflection->GetString(message, field)
                     : reflection->GetRepeatedString(message, field, index);
  }
  TextFormat::Printer printer;
  printer.SetSingleLineMode(true);
  std::string text;
  printer.PrintFieldValueToString(message, field, index, &text);
  return std::string(absl::StripAsciiWhitespace(text));
}

class Differ {
 public:
  std::vector<v1::Change> Run(const Message& before, const Message& after) {
    Compare("", before, after);
    return std::move(changes_);
  }

 private:
  void Compare(const std::string& path, const Message& before,
               const Message& after) {
    const auto* type = before.GetDescriptor();
    for (int i = 0; i < type->field_count(); ++i) {
      const FieldDescriptor* field = type->field(i);
      const std::string what = absl::StrCat(path, field->name());
      if (KeyOf(field) != nullptr) {
        CompareElements(what, field, before, after);
      } else if (field->is_repeated()) {
        Tell(what, ListOf(before, field), ListOf(after, field));
      } else if (field->message_type() != nullptr) {
        CompareMessages(what, field, before, after);
      } else {
        Tell(what, ScalarOf(before, field), ScalarOf(after, field));
      }
    }
  }

  void Tell(std::string what, std::string before, std::string after) {
    if (before == after) return;
    v1::Change& change = changes_.emplace_back();
    change.set_what(std::move(what));
    change.set_before(std::move(before));
    change.set_after(std::move(after));
  }

  // Of fields with presence nothing is another value than 0.
  static std::string ScalarOf(const Message& message,
                              const FieldDescriptor* field) {
    return IsSet(message, field) ? ValueOf(message, field, -1) : "";
  }

  static std::string ListOf(const Message& message,
                            const FieldDescriptor* field) {
    std::string list;
    const int size = message.GetReflection()->FieldSize(message, field);
    for (int i = 0; i < size; ++i) {
      absl::StrAppend(&list, i == 0 ? "" : ", ", ValueOf(message, field, i));
    }
    return list;
  }

  void CompareMessages(const std::string& what, const FieldDescriptor* field,
                       const Message& before, const Message& after) {
    if (IsSet(before, field) != IsSet(after, field)) {
      return Tell(what, Whole(before, field, -1), Whole(after, field, -1));
    }
    Compare(what + ".", before.GetReflection()->GetMessage(before, field),
            after.GetReflection()->GetMessage(after, field));
  }

  // "{}" of one without a field that is set, which is not none.
  static std::string Whole(const Message& message, const FieldDescriptor* field,
                           int index) {
    if (!IsSet(message, field)) return "";
    const std::string value = ValueOf(message, field, index);
    return value.empty() ? "{}" : absl::StrCat("{ ", value, " }");
  }

  // By key: its place. Of several with one key, which no manifest has, the
  // first.
  static std::map<std::string, int> PlacesOf(const Message& message,
                                             const FieldDescriptor* field) {
    std::map<std::string, int> places;
    const auto* reflection = message.GetReflection();
    for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
      const Message& one = reflection->GetRepeatedMessage(message, field, i);
      places.try_emplace(one.GetReflection()->GetString(one, KeyOf(field)), i);
    }
    return places;
  }

  void CompareElements(const std::string& list, const FieldDescriptor* field,
                       const Message& before, const Message& after) {
    const auto old_places = PlacesOf(before, field);
    const auto new_places = PlacesOf(after, field);
    for (const auto& [key, place] : old_places) {
      const std::string what = absl::StrCat(list, "[", key, "]");
      const auto other = new_places.find(key);
      if (other == new_places.end()) {
        Tell(what, Whole(before, field, place), "");
        continue;
      }
      Compare(what + ".",
              before.GetReflection()->GetRepeatedMessage(before, field, place),
              after.GetReflection()->GetRepeatedMessage(after, field,
                                                        other->second));
    }
    for (const auto& [key, place] : new_places) {
      if (old_places.contains(key)) continue;
      Tell(absl::StrCat(list, "[", key, "]"), "", Whole(after, field, place));
    }
    Tell(absl::StrCat("order of ", list), OrderOf(before, field, new_places),
         OrderOf(after, field, old_places));
  }

  // Of those that both have.
  static std::string OrderOf(const Message& message,
                             const FieldDescriptor* field,
                             const std::map<std::string, int>& others) {
    std::map<int, std::string> keys;
    for (const auto& [key, place] : PlacesOf(message, field)) {
      if (others.contains(key)) keys[place] = key;
    }
    std::string order;
    for (const auto& [place, key] : keys) {
      absl::StrAppend(&order, order.empty() ? "" : ", ", key);
    }
    return order;
  }

  std::vector<v1::Change> changes_;
};

}  // namespace

std::vector<v1::Change> DiffMessages(const Message& before,
                                     const Message& after) {
  return Differ().Run(before, after);
}

}  // namespace bpfgrant::daemon
