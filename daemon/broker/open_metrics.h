// Text in the format of OpenMetrics 1.0, a page of it.
//
// It must not know what is measured. Each page is made of everything anew, and
// skips what an earlier one had: families and samples come in the same order
// each time, by keys.

#ifndef DAEMON_BROKER_OPEN_METRICS_H_
#define DAEMON_BROKER_OPEN_METRICS_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bpfgrant/v1/metrics.pb.h"
#include "daemon/broker/histogram.h"

namespace bpfgrant::broker {

class OpenMetrics {
 public:
  enum class Type { kGauge, kCounter, kHistogram, kInfo };
  // Names are the caller's, values may be anybody's.
  using Labels = std::vector<std::pair<std::string_view, std::string_view>>;

  // The page behind `after`, the `next` of the page before it, of about
  // `bytes`; a histogram is never parted.
  OpenMetrics(std::string after, size_t bytes)
      : after_(std::move(after)), bytes_(bytes) {}

  // What comes next belongs to it. A `unit` must end the name.
  void Begin(std::string_view name, Type type, std::string_view help,
             std::string_view unit = "");
  // `key` orders the samples of a family: each greater than the one before.
  void Add(std::string_view key, const Labels& labels, double value);
  void Add(std::string_view key, const Labels& labels, uint64_t value);
  void Add(std::string_view key, const Labels& labels,
           const Histogram& histogram);

  // Once, behind all of it.
  v1::MetricsReply Finish() &&;

 private:
  // False: it is on another page. `key` is its place in the whole text.
  bool IsHere(std::string key);
  void AddText(std::string_view key, const Labels& labels,
               const std::string& value);
  std::string KeyOf(std::string_view sample) const;

  const std::string after_;
  const size_t bytes_;
  v1::MetricsReply page_;
  std::string last_;  // key of what is on this page
  bool full_ = false;
  int family_ = 0;
  std::string name_;
  Type type_ = Type::kGauge;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_OPEN_METRICS_H_
