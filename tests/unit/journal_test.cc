#include "daemon/broker/journal.h"

#include <chrono>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/synchronization/notification.h"
#include "bpfgrant/v1/audit.pb.h"
#include "gtest/gtest.h"
#include "proto/wire/limits.h"

namespace bpfgrant::broker {
namespace {

using Record = v1::AuditRecord;
using Clock = std::chrono::steady_clock;

Record Began(uint64_t grant) {
  Record record;
  record.set_event(Record::GRANT_BEGAN);
  record.mutable_about()->set_grant(grant);
  return record;
}

// What a journal was given; it takes nothing before it is opened.
struct SlowJournal {
  bool Take(const Record& record) {
    begun.Notify_once();
    open.WaitForNotification();
    const std::lock_guard lock(mutex);
    taken.push_back(record);
    return true;
  }
  struct Once : absl::Notification {
    void Notify_once() {
      if (!HasBeenNotified()) Notify();
    }
  };
  Once begun;
  absl::Notification open;
  std::mutex mutex;
  std::vector<Record> taken;
};

TEST(JournalTest, WritesAllInOrderBeforeItGoes) {
  SlowJournal slow;
  slow.open.Notify();
  {
    Journal journal([&](const Record& record) { return slow.Take(record); });
    for (uint64_t i = 1; i <= 100; ++i) journal.Write(Began(i));
  }
  ASSERT_EQ(slow.taken.size(), 100u);
  for (uint64_t i = 1; i <= 100; ++i) {
    EXPECT_EQ(slow.taken[i - 1].about().grant(), i);
  }
}

TEST(JournalTest, NeverMakesTheCallerWaitAndSaysHowManyAreLost) {
  SlowJournal slow;
  {
    Journal journal([&](const Record& record) { return slow.Take(record); });
    journal.Write(Began(1));
    slow.begun.WaitForNotification();
    const auto begin = Clock::now();
    for (uint64_t i = 0; i < kMaxQueuedRecords + 5; ++i) {
      journal.Write(Began(2 + i));
    }
    EXPECT_LT(Clock::now() - begin, std::chrono::seconds(5));
    EXPECT_EQ(journal.lost(), 5u);
    slow.open.Notify();
  }
  ASSERT_EQ(slow.taken.size(), kMaxQueuedRecords + 2);
  EXPECT_EQ(slow.taken[1].event(), Record::RECORDS_LOST);
  EXPECT_EQ(slow.taken[1].count(), 5u);
}

TEST(JournalTest, WhatIsNotTakenIsLost) {
  int calls = 0;
  absl::Notification told;
  uint64_t lost = 0;
  Journal journal([&](const Record& record) {
    if (++calls == 1) return false;
    if (record.event() == Record::RECORDS_LOST) {
      lost = record.count();
      told.Notify();
    }
    return true;
  });
  journal.Write(Began(1));
  journal.Write(Began(2));
  ASSERT_TRUE(told.WaitForNotificationWithTimeout(absl::Seconds(20)));
  EXPECT_EQ(lost, 1u);
}

TEST(JournalTest, AJournalThatTakesNothingIsGivenEachOnce) {
  int calls = 0;
  {
    Journal journal([&](const Record&) {
      ++calls;
      return false;
    });
    for (uint64_t i = 0; i < 10; ++i) journal.Write(Began(i));
  }
  EXPECT_EQ(calls, 10);
}

// The daemon's end must not wait for a journal that hangs.
TEST(JournalTest, AJournalThatHangsIsLeftBehind) {
  const auto slow = std::make_shared<SlowJournal>();
  const auto begin = Clock::now();
  {
    Journal journal(
        [slow](const Record& record) { return slow->Take(record); });
    journal.Write(Began(1));
    slow->begun.WaitForNotification();
  }
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(20));
  slow->open.Notify();
}

}  // namespace
}  // namespace bpfgrant::broker
