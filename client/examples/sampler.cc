// sampler: a process without any privilege that sees the packets of its own
// socket through an approved BPF program.
//
// It asks bpfgrantd for packet_sampler, attaches it to its UDP socket through
// its own io_uring, receives datagrams and reads their samples through that
// same ring, and compares both with what was sent. With --stay it goes on until
// the grant is revoked, shows what changes then, and waits for its end.

#include <liburing.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "bpfgrant/programs/packet_sampler.h"
#include "client/bpfgrant/attach.h"
#include "client/bpfgrant/connection.h"
#include "client/bpfgrant/ring_buffer.h"
#include "client/bpfgrant/uring.h"
#include "client/examples/kernel_ids.h"
#include "client/examples/traffic.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::example {
namespace {

// A socket filter on a UDP socket sees the UDP header first.
constexpr size_t kUdpHeaderBytes = 8;
// Few enough that neither socket nor ring buffer overflows between two looks.
constexpr size_t kBatch = 64;

// What a completion is about: its user_data.
enum Request : uint64_t { kAttach = 1, kPoll, kReceive };

class Sampler {
 public:
  static absl::StatusOr<std::unique_ptr<Sampler>> Open(UdpPair sockets) {
    std::unique_ptr<Sampler> sampler(new Sampler(std::move(sockets)));
    if (const int error = io_uring_queue_init(256, &sampler->ring_, 0);
        error < 0) {
      return absl::InternalError(
          absl::StrCat("io_uring: ", std::strerror(-error)));
    }
    return sampler;
  }
  ~Sampler() { io_uring_queue_exit(&ring_); }

  // Attaches through the ring; by setsockopt where the kernel's ring cannot.
  absl::StatusOr<std::string> Attach(int program) {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    PrepareAttach(sqe, sockets_.receiver.get(), &program, SocketHook::kFilter);
    io_uring_sqe_set_data64(sqe, kAttach);
    io_uring_submit(&ring_);
    io_uring_cqe* completion = nullptr;
    if (io_uring_wait_cqe(&ring_, &completion) < 0) {
      return absl::InternalError("waiting for a completion failed");
    }
    const int result = completion->res;
    io_uring_cqe_seen(&ring_, completion);
    if (result == 0) return std::string("through its own io_uring");
    if (result != -EOPNOTSUPP && result != -EINVAL) {
      return absl::InternalError(
          absl::StrCat("attaching by io_uring: ", std::strerror(-result)));
    }
    if (absl::Status status = AttachBySetsockopt(sockets_.receiver.get(),
                                                 program, SocketHook::kFilter);
        !status.ok()) {
      return status;
    }
    return std::string(
        "by setsockopt (this kernel's io_uring has no setsockopt)");
  }

  // Has the ring tell of samples from now on.
  absl::Status Watch(const Grant& grant) {
    const absl::StatusOr<const Grant::Handle*> handle = grant.Find("samples");
    if (!handle.ok()) return handle.status();
    absl::StatusOr<RingBuffer> samples = RingBuffer::Map(**handle);
    if (!samples.ok()) return samples.status();
    samples_ = std::make_unique<RingBuffer>(*std::move(samples));
    Poll();
    return absl::OkStatus();
  }

  // Sends `count` datagrams, receives them all, and reads the samples of them.
  absl::Status Run(size_t count) {
    for (size_t done = 0; done < count; done += kBatch) {
      const size_t batch = std::min(kBatch, count - done);
      if (absl::Status status =
              SendNumbered(sockets_.sender.get(), sent_, batch);
          !status.ok()) {
        return status;
      }
      sent_ += batch;
      if (absl::Status status = Receive(batch); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  size_t sent() const { return sent_; }
  size_t received() const { return received_; }
  size_t samples() const { return sampled_; }
  // Datagrams and samples that are not the next of what was sent.
  size_t wrong() const { return wrong_; }

 private:
  explicit Sampler(UdpPair sockets) : sockets_(std::move(sockets)) {}

  void Poll() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    PreparePoll(sqe, *samples_);
    io_uring_sqe_set_data64(sqe, kPoll);
    io_uring_submit(&ring_);
  }

  absl::Status Receive(size_t count) {
    std::vector<Numbered> datagrams(count);
    for (Numbered& datagram : datagrams) {
      io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
      io_uring_prep_recv(sqe, sockets_.receiver.get(), &datagram,
                         sizeof(datagram), 0);
      io_uring_sqe_set_data64(sqe, kReceive);
    }
    io_uring_submit(&ring_);
    for (size_t pending = count; pending > 0;) {
      __kernel_timespec timeout{2, 0};
      io_uring_cqe* completion = nullptr;
      if (io_uring_wait_cqe_timeout(&ring_, &completion, &timeout) < 0) {
        return absl::DataLossError(
            absl::StrCat(pending, " datagrams did not arrive"));
      }
      if (completion->user_data == kReceive) {
        --pending;
        received_ += completion->res == sizeof(Numbered);
      } else if ((completion->flags & IORING_CQE_F_MORE) == 0) {
        Poll();
      }
      io_uring_cqe_seen(&ring_, completion);
      if (absl::Status status = ReadSamples(); !status.ok()) return status;
    }
    for (const Numbered& datagram : datagrams) {
      wrong_ += datagram.magic != kMagic || datagram.number != next_++;
    }
    return ReadSamples();
  }

  absl::Status ReadSamples() {
    const auto read = samples_->Consume([this](auto bytes) {
      ++sampled_;
      packet_sample sample;
      if (bytes.size() < sizeof(sample)) {
        ++wrong_;
        return;
      }
      std::memcpy(&sample, bytes.data(), sizeof(sample));
      const auto* start = reinterpret_cast<const std::byte*>(sample.bytes);
      const int64_t number =
          NumberAt({start, sample.captured}, kUdpHeaderBytes);
      wrong_ += number != static_cast<int64_t>(sampled_ - 1);
    });
    return read.status();
  }

  UdpPair sockets_;
  io_uring ring_{};
  std::unique_ptr<RingBuffer> samples_;
  size_t sent_ = 0, received_ = 0, sampled_ = 0, wrong_ = 0;
  uint64_t next_ = 0;
};

struct Arguments {
  std::string socket = kDefaultBrokerSocket;
  size_t datagrams = 4000;
  bool attach = false;
  bool stay = false;
  unsigned pause_ms = 5;
};

absl::StatusOr<Grant> Acquire(Connection& connection, int socket, bool attach) {
  Connection::AcquireOptions options;
  options.program = "packet_sampler";
  options.interface = PACKET_SAMPLER_INTERFACE;
  options.interface_hash = PACKET_SAMPLER_INTERFACE_HASH;
  options.delivery = attach ? v1::DELIVERY_ATTACH : v1::DELIVERY_ANY;
  options.target = socket;
  return connection.Acquire(options);
}

void PrintTotals(const char* when, const Sampler& sampler) {
  std::printf("%ssent %zu, received %zu, sampled %zu, wrong %zu\n", when,
              sampler.sent(), sampler.received(), sampler.samples(),
              sampler.wrong());
}

// By the daemon, and not by the connection's end.
bool WasTold(const Grant& grant) {
  return grant.ended() && grant.end_reason() != v1::REASON_SESSION_ENDED;
}

// Until the daemon says that the grant is over; then shows what is left.
absl::Status Stay(Connection& connection, const Grant& grant, Sampler& sampler,
                  unsigned pause_ms) {
  std::printf("waiting to be revoked\n");
  std::fflush(stdout);
  while (!grant.ended()) {
    if (absl::Status status = sampler.Run(16); !status.ok()) return status;
    // A daemon that stops says so, and then the connection is gone as well.
    if (absl::Status status = connection.ProcessEvents();
        !status.ok() && !WasTold(grant)) {
      return status;
    }
    usleep(pause_ms * 1000);
  }
  std::printf("told: %s\n", ReasonName(grant.end_reason()).c_str());
  PrintTotals("until then: ", sampler);
  const size_t received = sampler.received();
  const size_t samples = sampler.samples();
  if (absl::Status status = sampler.Run(256); !status.ok()) return status;
  std::printf("after it: %zu datagrams received, %zu samples\n",
              sampler.received() - received, sampler.samples() - samples);
  std::fflush(stdout);
  if (sampler.received() - received != 256 || sampler.samples() != samples) {
    return absl::DataLossError("the gate did not do what on_revoke says");
  }
  for (;;) pause();
}

absl::Status Main(const Arguments& arguments) {
  absl::StatusOr<Connection> connection =
      Connection::Connect({.path = arguments.socket});
  if (!connection.ok()) return connection.status();
  absl::StatusOr<UdpPair> sockets = OpenUdpPair();
  if (!sockets.ok()) return sockets.status();
  const int receiver = sockets->receiver.get();
  absl::StatusOr<std::unique_ptr<Sampler>> opened =
      Sampler::Open(*std::move(sockets));
  if (!opened.ok()) return opened.status();
  Sampler& sampler = **opened;

  absl::StatusOr<Grant> grant =
      Acquire(*connection, receiver, arguments.attach);
  if (!grant.ok()) return grant.status();
  std::printf("grant %llu:%s\n", static_cast<unsigned long long>(grant->id()),
              KernelIds(*grant).c_str());
  if (grant->delivery() == v1::DELIVERY_ATTACH) {
    std::printf("attached by the daemon, to the socket that was sent\n");
  } else {
    const absl::StatusOr<std::string> how = sampler.Attach(grant->program_fd());
    if (!how.ok()) return how.status();
    std::printf("attached by its fd, %s\n", how->c_str());
  }
  if (absl::Status status = sampler.Watch(*grant); !status.ok()) return status;
  if (absl::Status status = sampler.Run(arguments.datagrams); !status.ok()) {
    return status;
  }
  PrintTotals("", sampler);
  if (sampler.received() != sampler.sent() ||
      sampler.samples() != sampler.sent() || sampler.wrong() != 0) {
    return absl::DataLossError("what was sampled is not what was sent");
  }
  return arguments.stay ? Stay(*connection, *grant, sampler, arguments.pause_ms)
                        : absl::OkStatus();
}

}  // namespace
}  // namespace bpfgrant::example

int main(int argc, char** argv) {
  bpfgrant::example::Arguments arguments;
  CLI::App app("Samples the packets of its own UDP socket.");
  app.add_option("--socket", arguments.socket, "broker.sock of the daemon");
  app.add_option("--datagrams", arguments.datagrams, "how many to send");
  app.add_flag("--attach", arguments.attach,
               "have the daemon attach, whatever the kernel");
  app.add_flag("--stay", arguments.stay, "go on until revoked, then wait");
  app.add_option("--pause", arguments.pause_ms,
                 "between batches while it stays, in milliseconds");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = bpfgrant::example::Main(arguments);
  if (status.ok()) return 0;
  std::fprintf(stderr, "sampler: %s\n", std::string(status.message()).c_str());
  return 1;
}
