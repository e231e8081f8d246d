#include "daemon/broker/open_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "daemon/broker/histogram.h"

namespace bpfgrant::broker {
namespace {

using std::chrono::nanoseconds;
using ::testing::HasSubstr;

uint64_t InBucket(nanoseconds took, size_t bucket) {
  Histogram histogram;
  histogram.Record(took);
  return histogram.count(bucket);
}

TEST(HistogramTest, ABoundBelongsToItsBucket) {
  EXPECT_EQ(InBucket(nanoseconds(0), 0), 1u);
  EXPECT_EQ(InBucket(nanoseconds(-5), 0), 1u);
  EXPECT_EQ(InBucket(nanoseconds(1000), 0), 1u);
  EXPECT_EQ(InBucket(nanoseconds(1001), 1), 1u);
  EXPECT_EQ(InBucket(nanoseconds(2000), 1), 1u);
  EXPECT_EQ(InBucket(nanoseconds(2001), 2), 1u);
  EXPECT_EQ(InBucket(nanoseconds(4000), 2), 1u);
  EXPECT_EQ(InBucket(nanoseconds(1'048'576'000), 20), 1u);
  EXPECT_EQ(InBucket(nanoseconds(1'048'576'001), 21), 1u);
  EXPECT_EQ(InBucket(std::chrono::hours(1), Histogram::kBounds), 1u);
  EXPECT_DOUBLE_EQ(Histogram::Bound(0), 1e-6);
  EXPECT_DOUBLE_EQ(Histogram::Bound(20), 1.048576);
}

TEST(HistogramTest, TheSumIsExact) {
  Histogram histogram;
  for (int i = 0; i < 1000; ++i) histogram.Record(nanoseconds(1'000'001));
  EXPECT_DOUBLE_EQ(histogram.sum_seconds(), 1.000001);
}

using Type = OpenMetrics::Type;

TEST(OpenMetricsTest, WritesEachType) {
  OpenMetrics text("", 1 << 20);
  text.Begin("build", Type::kInfo, "What it is");
  text.Add("", {{"version", "1"}}, uint64_t{1});
  text.Begin("up_seconds", Type::kGauge, "Since the start", "seconds");
  text.Add("", {}, 0.5);
  text.Begin("calls", Type::kCounter, "Calls");
  text.Add("a", {{"kind", "a"}, {"more", "b"}},
           uint64_t{18'000'000'000'000'000'000U});
  const v1::MetricsReply page = std::move(text).Finish();
  EXPECT_EQ(page.text(),
            "# TYPE build info\n# HELP build What it is\n"
            "build_info{version=\"1\"} 1\n"
            "# TYPE up_seconds gauge\n# UNIT up_seconds seconds\n"
            "# HELP up_seconds Since the start\nup_seconds 0.5\n"
            "# TYPE calls counter\n# HELP calls Calls\n"
            "calls_total{kind=\"a\",more=\"b\"} 18000000000000000000\n"
            "# EOF\n");
  EXPECT_EQ(page.next(), "");
}

TEST(OpenMetricsTest, AValueCannotEndItsLine) {
  OpenMetrics text("", 1 << 20);
  text.Begin("grants", Type::kGauge, "a\\b\nc");
  text.Add("", {{"program", "\"} 1\nevil 2\\"}}, uint64_t{1});
  const std::string page = std::move(text).Finish().text();
  EXPECT_THAT(page, HasSubstr("# HELP grants a\\\\b\\nc\n"));
  EXPECT_THAT(page, HasSubstr("grants{program=\"\\\"} 1\\nevil 2\\\\\"} 1\n"));
}

TEST(OpenMetricsTest, BucketsAreCumulative) {
  Histogram histogram;
  histogram.Record(nanoseconds(500));
  histogram.Record(nanoseconds(1500));
  histogram.Record(std::chrono::hours(1));
  OpenMetrics text("", 1 << 20);
  text.Begin("took_seconds", Type::kHistogram, "How long", "seconds");
  text.Add("", {{"path", "warm"}}, histogram);
  const std::string page = std::move(text).Finish().text();
  EXPECT_THAT(page,
              HasSubstr("took_seconds_bucket{path=\"warm\",le=\"1e-06\"} 1\n"
                        "took_seconds_bucket{path=\"warm\",le=\"2e-06\"} 2\n"
                        "took_seconds_bucket{path=\"warm\",le=\"4e-06\"} 2\n"));
  EXPECT_THAT(page,
              HasSubstr("took_seconds_bucket{path=\"warm\",le=\"+Inf\"} 3\n"
                        "took_seconds_count{path=\"warm\"} 3\n"
                        "took_seconds_sum{path=\"warm\"} 3600.000002"));
}

// Of so many samples, with those that begin with `without` left out.
v1::MetricsReply Write(const std::string& after, size_t bytes, int samples,
                       int without = -1) {
  OpenMetrics text(after, bytes);
  for (const char* name : {"ready", "wanted"}) {
    text.Begin(name, Type::kGauge, "Of each program");
    for (int i = 0; i < samples; ++i) {
      if (i == without) continue;
      const std::string program = absl::StrFormat("p%04d", i);
      text.Add(program, {{"program", program}}, uint64_t(i));
    }
  }
  text.Begin("took_seconds", Type::kHistogram, "How long", "seconds");
  text.Add("", {}, Histogram());
  return std::move(text).Finish();
}

TEST(OpenMetricsTest, PagesTogetherAreTheWhole) {
  const std::string whole = Write("", 1 << 20, 500).text();
  for (const size_t bytes : {1, 100, 4000}) {
    std::string all, after;
    int pages = 0;
    do {
      const v1::MetricsReply page = Write(after, bytes, 500);
      EXPECT_TRUE(page.text().ends_with('\n'));
      // What goes over is one sample, of which the longest is a histogram.
      EXPECT_LT(page.text().size(), bytes + 2000);
      if (!page.next().empty()) {
        ASSERT_GT(page.next(), after);
      }
      all += page.text();
      after = page.next();
      ++pages;
    } while (!after.empty());
    EXPECT_GT(pages, 5);
    EXPECT_EQ(all, whole);
  }
}

// A program that goes between two pages is missing from the second, and
// nothing else is missing or there twice.
TEST(OpenMetricsTest, WhatGoesBetweenPagesShiftsNothing) {
  const v1::MetricsReply first = Write("", 4000, 500);
  std::string all = first.text(), after = first.next();
  while (!after.empty()) {
    const v1::MetricsReply page = Write(after, 4000, 500, /*without=*/3);
    all += page.text();
    after = page.next();
  }
  std::string expected = Write("", 1 << 20, 500).text();
  const std::string gone = "wanted{program=\"p0003\"} 3\n";
  expected.erase(expected.find(gone), gone.size());
  EXPECT_EQ(all, expected);
}

// Whatever a client sends as a place to go on from.
TEST(OpenMetricsTest, ANonsensicalPlaceIsHarmless) {
  EXPECT_EQ(Write("\xff nonsense", 4000, 5).text(), "# EOF\n");
  EXPECT_EQ(Write("!", 1 << 20, 5).text(), Write("", 1 << 20, 5).text());
}

}  // namespace
}  // namespace bpfgrant::broker
