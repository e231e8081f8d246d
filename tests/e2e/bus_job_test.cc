// What systemd is asked about the daemon's own unit, of a stand-in that has the
// methods which are called: no systemd runs where tests do.

#include "daemon/broker/bus_job.h"

#include <systemd/sd-bus.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "daemon/broker/bus_link.h"
#include "daemon/broker/event_loop.h"
#include "gtest/gtest.h"
#include "tests/e2e/private_bus.h"
#include "tests/harness/skip.h"

namespace bpfgrant::test {
namespace {

using broker::BusJob;
using broker::BusLink;
using broker::EventLoop;

constexpr char kUnit[] = "/org/freedesktop/systemd1/unit/bpfgrantd_2eservice";
constexpr char kJob[] = "/org/freedesktop/systemd1/job/7";

// On the bus as org.freedesktop.systemd1, in a thread of its own.
class StandIn {
 public:
  enum class Mood { kRestarts, kIdle, kKnowsNoUnit, kSilent };

  StandIn(const std::string& address, Mood mood)
      : mood_(mood), thread_([this, address] { Run(address); }) {
    while (!up_) std::this_thread::yield();
  }
  ~StandIn() {
    stop_ = true;
    thread_.join();
  }
  uint32_t asked_pid() const { return asked_pid_; }

 private:
  static int OnUnit(sd_bus_message* call, void* data, sd_bus_error*) {
    auto* self = static_cast<StandIn*>(data);
    uint32_t pid = 0;
    sd_bus_message_read(call, "u", &pid);
    self->asked_pid_ = pid;
    if (self->mood_ == Mood::kSilent) return 1;
    if (self->mood_ == Mood::kKnowsNoUnit) {
      return sd_bus_reply_method_errorf(
          call, "org.freedesktop.systemd1.NoUnitForPID", "none");
    }
    return sd_bus_reply_method_return(call, "o", kUnit);
  }
  static int GetJob(sd_bus*, const char*, const char*, const char*,
                    sd_bus_message* reply, void* data, sd_bus_error*) {
    const bool idle = static_cast<StandIn*>(data)->mood_ == Mood::kIdle;
    return sd_bus_message_append(reply, "(uo)", idle ? 0 : 7,
                                 idle ? "/" : kJob);
  }
  static int GetType(sd_bus*, const char*, const char*, const char*,
                     sd_bus_message* reply, void*, sd_bus_error*) {
    return sd_bus_message_append(reply, "s", "restart");
  }
  void Run(const std::string& address) {
    static const sd_bus_vtable manager[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD("GetUnitByPID", "u", "o", OnUnit,
                      SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END};
    static const sd_bus_vtable unit[] = {
        SD_BUS_VTABLE_START(0), SD_BUS_PROPERTY("Job", "(uo)", GetJob, 0, 0),
        SD_BUS_VTABLE_END};
    static const sd_bus_vtable job[] = {
        SD_BUS_VTABLE_START(0), SD_BUS_PROPERTY("JobType", "s", GetType, 0, 0),
        SD_BUS_VTABLE_END};
    sd_bus* bus = nullptr;
    sd_bus_new(&bus);
    sd_bus_set_address(bus, address.c_str());
    sd_bus_set_bus_client(bus, 1);
    EXPECT_GE(sd_bus_start(bus), 0);
    sd_bus_add_object_vtable(bus, nullptr, "/org/freedesktop/systemd1",
                             "org.freedesktop.systemd1.Manager", manager, this);
    sd_bus_add_object_vtable(bus, nullptr, kUnit,
                             "org.freedesktop.systemd1.Unit", unit, this);
    sd_bus_add_object_vtable(bus, nullptr, kJob, "org.freedesktop.systemd1.Job",
                             job, this);
    EXPECT_GE(sd_bus_request_name(bus, "org.freedesktop.systemd1", 0), 0);
    up_ = true;
    while (!stop_) {
      if (sd_bus_process(bus, nullptr) == 0) sd_bus_wait(bus, 20'000);
    }
    sd_bus_flush_close_unref(bus);
  }

  const Mood mood_;
  std::atomic<uint32_t> asked_pid_{0};
  std::atomic<bool> up_{false}, stop_{false};
  std::thread thread_;
};

class BusJobTest : public ::testing::Test {
 protected:
  void SetUp() override {
    BPFGRANT_REQUIRE_CAPABILITIES(CAP_SETUID, CAP_SYS_ADMIN);
    const absl::Status status = bus_.Start(0);
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_EQ(setenv("DBUS_SYSTEM_BUS_ADDRESS", bus_.address().c_str(), 1), 0);
  }
  // What the daemon is told; how long it took is in took_.
  std::string Ask() {
    const auto begin = std::chrono::steady_clock::now();
    EventLoop loop;
    auto link = BusLink::Open(loop, [](const std::string&) {});
    EXPECT_TRUE(link.ok()) << link.status();
    if (!link.ok()) return "no bus";
    std::optional<std::string> told;
    const BusJob job(loop, **link, [&](std::string type) {
      EXPECT_FALSE(told.has_value());
      told = std::move(type);
      loop.Exit(0);
    });
    loop.Run();
    took_ = std::chrono::steady_clock::now() - begin;
    return told.value_or("never told");
  }

  PrivateBus bus_;
  std::chrono::steady_clock::duration took_{0};
};

TEST_F(BusJobTest, IsTheTypeOfTheJobThatIsQueued) {
  const StandIn systemd(bus_.address(), StandIn::Mood::kRestarts);
  EXPECT_EQ(Ask(), "restart");
  EXPECT_EQ(systemd.asked_pid(), static_cast<uint32_t>(getpid()));
}

TEST_F(BusJobTest, IsNoneWhereThereIsNone) {
  const StandIn systemd(bus_.address(), StandIn::Mood::kIdle);
  EXPECT_EQ(Ask(), "");
}

TEST_F(BusJobTest, IsNoneOfWhatIsNoUnit) {
  const StandIn systemd(bus_.address(), StandIn::Mood::kKnowsNoUnit);
  EXPECT_EQ(Ask(), "");
}

TEST_F(BusJobTest, IsNoneWithoutSystemd) { EXPECT_EQ(Ask(), ""); }

TEST_F(BusJobTest, IsNotWaitedForLong) {
  const StandIn systemd(bus_.address(), StandIn::Mood::kSilent);
  EXPECT_EQ(Ask(), "");
  EXPECT_GE(took_, std::chrono::milliseconds(1900));
}

// Whoever asked is told, also when the bus goes.
TEST_F(BusJobTest, IsToldWhenItIsGivenUp) {
  EventLoop loop;
  auto link = BusLink::Open(loop, [](const std::string&) {});
  ASSERT_TRUE(link.ok()) << link.status();
  std::optional<std::string> told;
  {
    const BusJob job(loop, **link, [&](std::string type) { told = type; });
  }
  EXPECT_EQ(told, "");
}

}  // namespace
}  // namespace bpfgrant::test
