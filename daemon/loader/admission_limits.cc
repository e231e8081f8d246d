#include "daemon/loader/admission_limits.h"

#include <bpf/libbpf.h>

#include <algorithm>
#include <cassert>
#include <functional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "bpfgrant/v1/manifest.pb.h"
#include "daemon/loader/helper_name.h"
#include "daemon/loader/manifest.h"
#include "proto/refusal/refusal.h"
#include "proto/text/text_file.h"

namespace bpfgrant::daemon {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr char kBuiltIn[] = "built in";
constexpr char kAny[] = "*";
constexpr char kNone[] = "none";
constexpr char kDefault[] = "default";
// Above the types that any kernel has.
constexpr int kMapTypes = 64;

// Nothing here writes the memory of processes or of the kernel, changes what a
// system call returns, sends signals, calls bpf(2), changes packets, or calls
// another program.
constexpr char kBuiltInLimits[] = R"(
program_type: ["SOCKET_FILTER", "SK_REUSEPORT", "IO_URING_LOOP", "TRACING"]
map_type: ["ARRAY", "HASH", "LPM_TRIE", "PERCPU_ARRAY", "RINGBUF",
           "USER_RINGBUF", "REUSEPORT_SOCKARRAY", "ARRAY_OF_MAPS",
           "TASK_STORAGE", "STRUCT_OPS"]
helper: ["map_lookup_elem", "map_update_elem", "map_delete_elem",
         "map_lookup_percpu_elem", "for_each_map_elem", "loop",
         "ktime_get_ns", "ktime_get_boot_ns", "ktime_get_coarse_ns",
         "ktime_get_tai_ns", "jiffies64", "get_prandom_u32",
         "get_smp_processor_id", "get_numa_node_id",
         "get_current_pid_tgid", "get_current_uid_gid", "get_current_comm",
         "get_current_task_btf", "task_storage_get", "task_storage_delete",
         "probe_read_kernel",
         "skb_load_bytes", "skb_load_bytes_relative", "csum_diff",
         "get_socket_cookie", "get_socket_uid", "sk_select_reuseport",
         "ringbuf_output", "ringbuf_reserve", "ringbuf_submit",
         "ringbuf_discard", "ringbuf_query", "ringbuf_reserve_dynptr",
         "ringbuf_submit_dynptr", "ringbuf_discard_dynptr",
         "user_ringbuf_drain", "dynptr_from_mem", "dynptr_read",
         "dynptr_write", "dynptr_data", "spin_lock", "spin_unlock",
         "strncmp", "strtol", "strtoul", "snprintf"]
kfunc: ["bpf_io_uring_get_region", "bpf_io_uring_submit_sqes",
        "bpf_iter_num_new", "bpf_iter_num_next", "bpf_iter_num_destroy",
        "bpf_dynptr_from_skb", "bpf_dynptr_slice", "bpf_dynptr_size",
        "bpf_dynptr_adjust", "bpf_dynptr_is_null", "bpf_dynptr_is_rdonly",
        "bpf_strlen", "bpf_strnlen", "bpf_strncasecmp"]
program { instructions: 65536 object_bytes: 4194304 map_bytes: 134217728
          maps: 64 entries: 1048576 }
total { instructions: 4194304 object_bytes: 268435456
        map_bytes: 1073741824 maps: 16384 entries: 16777216 }
unrevocable: "none"
trusted_user: "*"
trusted_group: "*"
)";

bool IsMapType(const std::string& name) {
  const std::string wanted = absl::AsciiStrToLower(name);
  for (int type = 1; type < kMapTypes; ++type) {
    const char* known =
        libbpf_bpf_map_type_str(static_cast<bpf_map_type>(type));
    if (known != nullptr && wanted == known) return true;
  }
  return false;
}

// What is wrong with an element of a list; "" if nothing is.
std::string WrongWith(std::string_view list, const std::string& name) {
  v1::Manifest::Type type;
  if (list == "program_type" && (!v1::Manifest::Type_Parse(name, &type) ||
                                 type == v1::Manifest::TYPE_UNSPECIFIED)) {
    return absl::StrCat("there are no programs of type '", name, "'");
  }
  if (list == "map_type" && !IsMapType(name)) {
    return absl::StrCat("there are no maps of type '", name, "'");
  }
  if (list == "helper" && !IsHelper(name)) {
    return absl::StrCat("there is no helper '", name, "'");
  }
  if (list == "kfunc" && !IsIdentifier(name, 127)) {
    return absl::StrCat("'", name, "' is no name of a function");
  }
  if (list == "unrevocable" && !IsName(name)) {
    return absl::StrCat("'", name, "' is no name of a program");
  }
  return "";
}

// The numbers of users or groups by a list that may hold their names.
absl::StatusOr<std::set<uint32_t>> Numbers(
    const std::set<std::string>& names, const std::string& place,
    const std::function<absl::StatusOr<uint32_t>(const std::string&)>& find) {
  std::set<uint32_t> numbers;
  for (const std::string& name : names) {
    uint32_t number;
    if (!absl::SimpleAtoi(name, &number)) {
      const auto found = find(name);
      if (!found.ok()) {
        return Refuse(
            v1::REASON_FILE_INVALID,
            absl::StrCat(place, ": ", std::string(found.status().message())));
      }
      number = *found;
    }
    numbers.insert(number);
  }
  return numbers;
}

absl::Status OverLimit(const std::string& what, std::string_view limit,
                       const std::string& place) {
  return Refuse(v1::REASON_ADMISSION_LIMIT,
                absl::StrCat(what, " (the limit '", std::string(limit), "', ",
                             place, ")"));
}

template <typename Visit>
void ForEach(const Amounts& amounts, const Visit& visit) {
  visit("instructions", amounts.instructions);
  visit("object_bytes", amounts.object_bytes);
  visit("map_bytes", amounts.map_bytes);
  visit("maps", amounts.maps);
  visit("entries", amounts.entries);
}

}  // namespace

Amounts& Amounts::operator+=(const Amounts& other) {
  instructions += other.instructions;
  object_bytes += other.object_bytes;
  map_bytes += other.map_bytes;
  maps += other.maps;
  entries += other.entries;
  return *this;
}

AdmissionLimits::AdmissionLimits() {
  const absl::Status parsed = Override(kBuiltIn, kBuiltInLimits);
  assert(parsed.ok());
}

AdmissionLimits AdmissionLimits::None() {
  AdmissionLimits limits;
  for (auto& [name, list] : limits.lists_) list.any = true;
  for (auto& [name, size] : limits.sizes_) size.most = UINT64_MAX;
  return limits;
}

absl::Status AdmissionLimits::Override(const std::string& file,
                                       std::string_view bytes) {
  TextFile text(file);
  v1::AdmissionLimits message;
  if (auto status = text.Parse(bytes, message); !status.ok()) return status;
  AdmissionLimits changed = *this;
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const auto status = field->is_repeated()
                            ? changed.SetList(text, message, *field)
                            : changed.SetSizes(text, message, *field);
    if (!status.ok()) return status;
  }
  *this = std::move(changed);
  return absl::OkStatus();
}

absl::Status AdmissionLimits::SetList(const TextFile& text,
                                      const v1::AdmissionLimits& message,
                                      const FieldDescriptor& field) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  const std::string name(field.name());
  const int count = reflection.FieldSize(message, &field);
  List list{false, {}, PlaceOf(text, text.Where(name))};
  for (int i = 0; i < count; ++i) {
    const std::string element =
        reflection.GetRepeatedString(message, &field, i);
    if (element == kNone) {
      if (count == 1) break;
      return text.Complain(text.Where(name, i), "\"none\" stands alone");
    }
    if (element == kAny) {
      list.any = true;
    } else if (element == kDefault) {
      const List& before = lists_[name];
      list.any = list.any || before.any;
      list.names.insert(before.names.begin(), before.names.end());
    } else if (std::string wrong = WrongWith(name, element); !wrong.empty()) {
      return text.Complain(text.Where(name, i), wrong);
    } else {
      list.names.insert(element);
    }
  }
  lists_[name] = std::move(list);
  return absl::OkStatus();
}

absl::Status AdmissionLimits::SetSizes(const TextFile& text,
                                       const v1::AdmissionLimits& message,
                                       const FieldDescriptor& field) {
  const Message& sizes = message.GetReflection()->GetMessage(message, &field);
  std::vector<const FieldDescriptor*> given;
  sizes.GetReflection()->ListFields(sizes, &given);
  for (const FieldDescriptor* size : given) {
    sizes_[absl::StrCat(std::string(field.name()), ".",
                        std::string(size->name()))] = {
        sizes.GetReflection()->GetUInt64(sizes, size),
        PlaceOf(text, text.Where(field.name(), -1, size->name()))};
  }
  return absl::OkStatus();
}

std::string AdmissionLimits::PlaceOf(const TextFile& text, Place place) {
  if (text.name() == kBuiltIn) return kBuiltIn;
  return absl::StrCat(text.name(), ":", place.line, ":", place.column);
}

bool AdmissionLimits::Allows(std::string_view list,
                             const std::string& name) const {
  const List& allowed = lists_.find(list)->second;
  return allowed.any || allowed.names.contains(name);
}

absl::Status AdmissionLimits::CheckAll(
    std::string_view list, const std::set<std::string>& names) const {
  for (const std::string& name : names) {
    if (Allows(list, name)) continue;
    return OverLimit(
        absl::StrCat("its ", std::string(list), " '", name, "' is not allowed"),
        list, lists_.find(list)->second.place);
  }
  return absl::OkStatus();
}

absl::Status AdmissionLimits::CheckAmounts(std::string_view group,
                                           const Amounts& amounts) const {
  absl::Status status;
  ForEach(amounts, [&](const char* name, uint64_t amount) {
    const std::string limit = absl::StrCat(std::string(group), ".", name);
    const Size& size = sizes_.find(limit)->second;
    if (!status.ok() || amount <= size.most) return;
    status = OverLimit(
        absl::StrCat(
            group == "total" ? "with it all programs have " : "it has ", amount,
            " ", name, ", where ", size.most, " are the most"),
        limit, size.place);
  });
  return status;
}

absl::Status AdmissionLimits::CheckTrust(
    absl::Span<const CompiledRule> rules,
    const policy::NameResolver& resolver) const {
  const List& users = lists_.find("trusted_user")->second;
  const List& groups = lists_.find("trusted_group")->second;
  const auto uids =
      Numbers(users.names, users.place,
              [&](const std::string& name) { return resolver.User(name); });
  if (!uids.ok()) return uids.status();
  const auto gids =
      Numbers(groups.names, groups.place,
              [&](const std::string& name) { return resolver.Group(name); });
  if (!gids.ok()) return gids.status();
  const auto covers = [](const List& list, const std::set<uint32_t>& numbers,
                         const auto& named) {
    return list.any ||
           std::all_of(named.begin(), named.end(), [&](uint32_t number) {
             return numbers.contains(number);
           });
  };
  for (const CompiledRule& rule : rules) {
    if (!rule.trusted()) continue;
    const bool by_name = rule.uid_size() + rule.gid_size() > 0;
    if ((by_name || (users.any && groups.any)) &&
        covers(users, *uids, rule.uid()) && covers(groups, *gids, rule.gid())) {
      continue;
    }
    return OverLimit(
        absl::StrCat(rule.file(), ":", rule.line(), ": rule '", rule.name(),
                     "' trusts others than may be trusted"),
        covers(users, *uids, rule.uid()) && by_name ? "trusted_group"
                                                    : "trusted_user",
        covers(users, *uids, rule.uid()) && by_name ? groups.place
                                                    : users.place);
  }
  return absl::OkStatus();
}

std::vector<v1::LimitInForce> AdmissionLimits::Describe() const {
  std::vector<v1::LimitInForce> limits;
  const auto add = [&](const std::string& name, std::string value,
                       const std::string& place) {
    v1::LimitInForce& limit = limits.emplace_back();
    limit.set_name(name);
    limit.set_value(std::move(value));
    limit.set_place(place);
  };
  for (const auto& [name, list] : lists_) {
    add(name,
        list.any             ? kAny
        : list.names.empty() ? kNone
                             : absl::StrJoin(list.names, " "),
        list.place);
  }
  for (const auto& [name, size] : sizes_) {
    add(name, absl::StrCat(size.most), size.place);
  }
  return limits;
}

}  // namespace bpfgrant::daemon
