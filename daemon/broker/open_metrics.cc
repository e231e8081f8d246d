#include "daemon/broker/open_metrics.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace bpfgrant::broker {
namespace {

std::string_view NameOf(OpenMetrics::Type type) {
  switch (type) {
    case OpenMetrics::Type::kGauge:
      return "gauge";
    case OpenMetrics::Type::kCounter:
      return "counter";
    case OpenMetrics::Type::kHistogram:
      return "histogram";
    case OpenMetrics::Type::kInfo:
      return "info";
  }
  return "unknown";
}

std::string Escape(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '\n') {
      escaped += "\\n";
      continue;
    }
    if (c == '\\' || c == '"') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

// With braces, or "" if there are none.
std::string Print(const OpenMetrics::Labels& labels) {
  std::string text;
  for (const auto& [name, value] : labels) {
    absl::StrAppend(&text, text.empty() ? "{" : ",", std::string(name), "=\"",
                    Escape(value), "\"");
  }
  return text.empty() ? text : absl::StrCat(text, "}");
}

// All that a double holds.
std::string Print(double value) { return absl::StrFormat("%.17g", value); }

}  // namespace

std::string OpenMetrics::KeyOf(std::string_view sample) const {
  return absl::StrFormat("%02d/%s", family_, std::string(sample));
}

bool OpenMetrics::IsHere(std::string key) {
  if (full_ || key <= after_) return false;
  if (page_.text().size() >= bytes_) {
    full_ = true;
    page_.set_next(last_);
    return false;
  }
  last_ = std::move(key);
  return true;
}

void OpenMetrics::Begin(std::string_view name, Type type, std::string_view help,
                        std::string_view unit) {
  ++family_;
  name_ = std::string(name);
  type_ = type;
  // Before all keys of its samples.
  if (!IsHere(absl::StrFormat("%02d", family_))) return;
  std::string& text = *page_.mutable_text();
  absl::StrAppend(&text, "# TYPE ", name_, " ", std::string(NameOf(type)),
                  "\n");
  if (!unit.empty()) {
    absl::StrAppend(&text, "# UNIT ", name_, " ", std::string(unit), "\n");
  }
  absl::StrAppend(&text, "# HELP ", name_, " ", Escape(help), "\n");
}

void OpenMetrics::AddText(std::string_view key, const Labels& labels,
                          const std::string& value) {
  if (!IsHere(KeyOf(key))) return;
  const char* suffix = type_ == Type::kCounter ? "_total"
                       : type_ == Type::kInfo  ? "_info"
                                               : "";
  absl::StrAppend(page_.mutable_text(), name_, suffix, Print(labels), " ",
                  value, "\n");
}

void OpenMetrics::Add(std::string_view key, const Labels& labels,
                      double value) {
  AddText(key, labels, Print(value));
}

void OpenMetrics::Add(std::string_view key, const Labels& labels,
                      uint64_t value) {
  AddText(key, labels, absl::StrCat(value));
}

void OpenMetrics::Add(std::string_view key, const Labels& labels,
                      const Histogram& histogram) {
  if (!IsHere(KeyOf(key))) return;
  std::string& text = *page_.mutable_text();
  uint64_t count = 0;
  for (size_t i = 0; i <= Histogram::kBounds; ++i) {
    count += histogram.count(i);
    const std::string bound = i == Histogram::kBounds
                                  ? "+Inf"
                                  : absl::StrFormat("%g", Histogram::Bound(i));
    Labels with_bound = labels;
    with_bound.emplace_back("le", bound);
    absl::StrAppend(&text, name_, "_bucket", Print(with_bound), " ", count,
                    "\n");
  }
  absl::StrAppend(&text, name_, "_count", Print(labels), " ", count, "\n");
  absl::StrAppend(&text, name_, "_sum", Print(labels), " ",
                  Print(histogram.sum_seconds()), "\n");
}

v1::MetricsReply OpenMetrics::Finish() && {
  if (!full_) page_.mutable_text()->append("# EOF\n");
  return std::move(page_);
}

}  // namespace bpfgrant::broker
