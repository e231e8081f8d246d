// The verb that looks into a loop: trace.

#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bpfgrant/loop_status.h"
#include "client/bpfgrantctl/command.h"
#include "client/bpfgrantctl/json.h"
#include "client/bpfgrantctl/output.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::ctl {
namespace {

// enum io_uring_op of Linux 7.1, without IORING_OP_.
constexpr const char* kOperations[] = {"NOP",
                                       "READV",
                                       "WRITEV",
                                       "FSYNC",
                                       "READ_FIXED",
                                       "WRITE_FIXED",
                                       "POLL_ADD",
                                       "POLL_REMOVE",
                                       "SYNC_FILE_RANGE",
                                       "SENDMSG",
                                       "RECVMSG",
                                       "TIMEOUT",
                                       "TIMEOUT_REMOVE",
                                       "ACCEPT",
                                       "ASYNC_CANCEL",
                                       "LINK_TIMEOUT",
                                       "CONNECT",
                                       "FALLOCATE",
                                       "OPENAT",
                                       "CLOSE",
                                       "FILES_UPDATE",
                                       "STATX",
                                       "READ",
                                       "WRITE",
                                       "FADVISE",
                                       "MADVISE",
                                       "SEND",
                                       "RECV",
                                       "OPENAT2",
                                       "EPOLL_CTL",
                                       "SPLICE",
                                       "PROVIDE_BUFFERS",
                                       "REMOVE_BUFFERS",
                                       "TEE",
                                       "SHUTDOWN",
                                       "RENAMEAT",
                                       "UNLINKAT",
                                       "MKDIRAT",
                                       "SYMLINKAT",
                                       "LINKAT",
                                       "MSG_RING",
                                       "FSETXATTR",
                                       "SETXATTR",
                                       "FGETXATTR",
                                       "GETXATTR",
                                       "SOCKET",
                                       "URING_CMD",
                                       "SEND_ZC",
                                       "SENDMSG_ZC",
                                       "READ_MULTISHOT",
                                       "WAITID",
                                       "FUTEX_WAIT",
                                       "FUTEX_WAKE",
                                       "FUTEX_WAITV",
                                       "FIXED_FD_INSTALL",
                                       "FTRUNCATE",
                                       "BIND",
                                       "LISTEN",
                                       "RECV_ZC",
                                       "EPOLL_WAIT",
                                       "READV_FIXED",
                                       "WRITEV_FIXED",
                                       "PIPE",
                                       "NOP128",
                                       "URING_CMD128"};

// enum bpfgrant_stop.
constexpr const char* kStops[] = {"NONE", "DONE",     "PASSED", "ERROR",
                                  "IDLE", "BUDGET",   "WOKEN",  "REVOKED",
                                  "TASK", "GEOMETRY", "SUBMIT"};
static_assert(std::size(kStops) == BPFGRANT_STOP_SUBMIT + 1);

template <size_t kCount>
std::string NameOf(const char* const (&names)[kCount], uint32_t number) {
  return number < kCount ? std::string(names[number]) : absl::StrCat(number);
}

// A result as the kernel means it: a count, or an error's name.
std::string Result(int32_t result) {
  if (result >= 0) return absl::StrCat(result);
  const char* name = strerrorname_np(-result);
  return name == nullptr ? absl::StrCat(result) : absl::StrCat("-", name);
}

std::string DescribeCompletion(const v1::TraceEvent& event) {
  std::string text = absl::StrFormat("completion  %#x  %s", event.user_data(),
                                     Result(event.result()));
  if (event.user_data() == BPFGRANT_WAKE) text = "completion  a wake";
  if (event.flags() != 0) {
    absl::StrAppendFormat(&text, "  flags %#x", event.flags());
  }
  return text;
}

std::string DescribeRequest(const v1::TraceEvent& event) {
  std::string text = absl::StrFormat("request     %#x  %s", event.user_data(),
                                     NameOf(kOperations, event.opcode()));
  if (event.fd() >= 0) absl::StrAppend(&text, "  fd ", event.fd());
  if (event.length() != 0) absl::StrAppend(&text, "  length ", event.length());
  if (event.offset() != 0) absl::StrAppend(&text, "  offset ", event.offset());
  if (event.flags() != 0) {
    absl::StrAppendFormat(&text, "  flags %#x", event.flags());
  }
  return text;
}

std::string DescribeDecision(const v1::TraceEvent& event) {
  if (event.stop() == BPFGRANT_STOP_ERROR) {
    return absl::StrCat("stops       ERROR ", Result(event.result()));
  }
  if (event.stop() != BPFGRANT_STOP_NONE) {
    return absl::StrCat("stops       ", NameOf(kStops, event.stop()));
  }
  // What is there already makes it negative.
  const auto missing = static_cast<int32_t>(event.wait_for());
  return missing > 0
             ? absl::StrCat("waits       for ", Count(missing, "completion"))
             : std::string("goes on");
}

void PrintEvent(const v1::TraceEvent& event) {
  if (event.dropped() > 0) {
    std::printf("%s\n",
                Paint(Style::kDoubtful,
                      absl::StrCat("                    ",
                                   Count(event.dropped(), "event"), " dropped"))
                    .c_str());
  }
  if (event.kind() == v1::TraceEvent::KIND_ENDED) {
    std::printf("the grant ended: %s\n", ReasonName(event.reason()).c_str());
    return;
  }
  const std::string what = event.kind() == v1::TraceEvent::KIND_COMPLETION
                               ? DescribeCompletion(event)
                           : event.kind() == v1::TraceEvent::KIND_REQUEST
                               ? DescribeRequest(event)
                               : DescribeDecision(event);
  std::printf("%s\n", absl::StrFormat(
                          "%6d.%06d  %8d  %s", event.at_ns() / 1'000'000'000,
                          event.at_ns() / 1000 % 1'000'000, event.step(), what)
                          .c_str());
}

absl::StatusOr<int> Trace(const Settings& settings, uint64_t grant,
                          uint64_t count) {
  auto connection = Connect(settings);
  if (!connection.ok()) return connection.status();
  if (absl::Status status = connection->Trace(grant); !status.ok()) {
    return status;
  }
  for (uint64_t seen = 0; count == 0 || seen < count;) {
    const auto event = connection->WaitTrace(std::chrono::hours(1));
    if (absl::IsDeadlineExceeded(event.status())) continue;
    if (!event.ok()) return event.status();
    ++seen;
    if (settings.json) {
      const absl::Status printed = PrintJson(*event, Layout::kOneLine);
      if (!printed.ok()) return printed;
    } else {
      PrintEvent(*event);
    }
    if (std::fflush(stdout) != 0) return kInternal;
    if (event->kind() == v1::TraceEvent::KIND_ENDED) break;
  }
  return kOk;
}

}  // namespace

void AddTrace(CLI::App& app, Command& command) {
  const auto grant = std::make_shared<uint64_t>(0);
  const auto count = std::make_shared<uint64_t>(0);
  CLI::App* verb = AddVerb(
      app, command, "trace",
      "What an io_uring loop sees and does from now on; for administrators",
      [grant, count](const Settings& settings) {
        return Trace(settings, *grant, *count);
      });
  verb->add_option("GRANT", *grant, "the grant, as `grants` numbers them")
      ->required();
  verb->add_option("--count", *count, "end after that many events")
      ->type_name("N")
      ->check([](const std::string& text) {
        return text == "0" ? std::string("that would be none") : std::string();
      });
}

}  // namespace bpfgrant::ctl
