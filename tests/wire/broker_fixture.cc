#include "tests/wire/broker_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include <atomic>
#include <cstddef>
#include <ostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/broker/snapshot.h"
#include "spdlog/spdlog.h"
#include "tests/wire/moment.h"

namespace bpfgrant::broker_test {
namespace {

using Clock = std::chrono::steady_clock;

// Listens on a name that the kernel finds; `address` becomes it.
UniqueFd Listen(std::string& address) {
  UniqueFd listener(
      socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  EXPECT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&name),
                 sizeof(name.sun_family)),
            0);
  EXPECT_EQ(listen(listener.get(), 1024), 0);
  socklen_t length = sizeof(name);
  EXPECT_EQ(
      getsockname(listener.get(), reinterpret_cast<sockaddr*>(&name), &length),
      0);
  address.assign(name.sun_path, length - offsetof(sockaddr_un, sun_path));
  return listener;
}

UniqueFd GateMap(uint32_t slots) {
  UniqueFd map(memfd_create("gates", MFD_CLOEXEC));
  EXPECT_EQ(ftruncate(map.get(),
                      static_cast<off_t>(slots * sizeof(bpfgrant_gate_entry))),
            0);
  return map;
}

// Answers each byte with one a moment later; or nobody does.
UniqueFd GraceKeeper(bool answers) {
  int ends[2];
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  std::thread([keeper = UniqueFd(ends[0]), answers] {
    char byte;
    while (answers && read(keeper.get(), &byte, 1) == 1) {
      usleep(2000);
      if (send(keeper.get(), &byte, 1, MSG_NOSIGNAL) != 1) return;
    }
  }).detach();
  return UniqueFd(ends[1]);
}

std::map<std::string, int> CountHandles(const daemon::Snapshot& snapshot) {
  std::map<std::string, int> handles;
  for (const daemon::CatalogEntry& entry : snapshot.entry()) {
    handles[entry.description().summary().name()] =
        entry.description().handle_size();
  }
  return handles;
}

}  // namespace

daemon::CatalogEntry Entry(const TestProgram& program) {
  daemon::CatalogEntry entry;
  v1::DescribeReply& description = *entry.mutable_description();
  v1::ProgramSummary& summary = *description.mutable_summary();
  summary.set_name(program.name);
  summary.set_interface(program.name + "/1");
  summary.set_description(program.description);
  summary.set_available(program.available);
  if (!program.available) description.set_refusal("as the test wants it");
  description.set_digest("digest " + program.version);
  description.set_interface_hash(std::string(64, 'a'));
  description.set_instance_bytes(4096);
  for (int i = 0; i < program.handles; ++i) {
    v1::Handle& handle = *description.add_handle();
    handle.set_name(absl::StrCat("map", i));
    handle.set_kind(v1::HANDLE_KIND_ARRAY);
    handle.set_rights(v1::RIGHTS_READ);
  }
  for (const v1::Delivery delivery : program.delivery) {
    description.mutable_detail()->add_allowed_delivery(delivery);
  }
  entry.set_pool_target(program.pool);
  entry.set_identity("identity " + program.version);
  return entry;
}

daemon::CompiledRule Allow(const std::string& program, uint32_t quota) {
  daemon::CompiledRule rule;
  rule.set_name(absl::StrCat("allow ", program));
  rule.set_file("test.policy");
  rule.set_line(1);
  rule.set_everyone(true);
  rule.add_program(program);
  rule.set_quota(quota);
  return rule;
}

daemon::Snapshot Catalog(const std::vector<TestProgram>& programs,
                         const std::vector<daemon::CompiledRule>& rules) {
  daemon::Snapshot snapshot;
  for (const TestProgram& program : programs) {
    *snapshot.add_entry() = Entry(program);
  }
  for (const daemon::CompiledRule& rule : rules) *snapshot.add_rule() = rule;
  return snapshot;
}

std::shared_ptr<const broker::Snapshot> Read(const daemon::Snapshot& message) {
  auto snapshot =
      broker::Snapshot::Read(MemoryFile(message.SerializeAsString()));
  EXPECT_TRUE(snapshot.ok()) << snapshot.status();
  return snapshot.ok() ? *snapshot : std::make_shared<broker::Snapshot>();
}

daemon::Snapshot DefaultCatalog() {
  TestProgram tap;
  tap.name = "tap";
  tap.handles = 0;
  return Catalog({TestProgram(), tap},
                 {Allow("sampler", 10'000), Allow("tap", 10'000)});
}

std::ostream& operator<<(std::ostream& out, const Holdings& holdings) {
  return out << holdings.sessions << " sessions, " << holdings.grants
             << " grants of " << holdings.total << ", " << holdings.gates
             << " gates, " << holdings.loads << " loads, " << holdings.attaches
             << " attaches";
}

broker::Session* TestBroker::Parts::FindSession(uint64_t id) {
  broker::Connection* connection = acceptor.Find(id);
  return connection == nullptr ? nullptr : &connection->session();
}

TestBroker::Parts::Parts(BrokerSetup setup, UniqueFd loader_end,
                         UniqueFd broker_end, UniqueFd gate_map,
                         UniqueFd listener, int witness)
    : mitigations(setup.mitigations),
      scripted(loop, std::move(loader_end), witness),
      loader(loop, std::move(broker_end), [this] { loader_lost = true; }),
      gates(*broker::Gates::Map(std::move(gate_map), setup.gate_slots,
                                mitigations.gate_nonce)),
      grace_period(loop, GraceKeeper(setup.grace_periods)),
      executables(loader, setup.no_executables),
      remains(loop, loader, ledger, setup.census),
      pool(loop, loader, gates, remains, setup.pool,
           !mitigations.instances_not_reused, mitigations.values_by_user),
      audit(loop, mitigations,
            [this](v1::AuditRecord record) {
              records.push_back(std::move(record));
            }),
      keeping(loop, daemon::FdStore(), {}),
      granting({loop, loader, gates, pool, ledger, remains, watchers, audit,
                executables, keeping, mitigations, setup.grants_per_session,
                [this](uint64_t id) { return FindSession(id); }}),
      rotations({loop, gates, ledger, grace_period, mitigations}),
      service({loop, loader, gates, pool, ledger, watchers, audit, granting,
               executables, grace_period, rotations, [](v1::StatusReply&) {},
               [](bool) {}, [this](uint64_t id) { return FindSession(id); }}),
      acceptor({loop, service, granting, watchers, keeping, mitigations,
                setup.limits, setup.identify, setup.administrator_group},
               std::move(listener)) {
  scripted.load = setup.load;
  scripted.handles = CountHandles(setup.catalog);
  granting.SetSnapshot(Read(setup.catalog));
  loader.Start();
  acceptor.Start();
}

TestBroker::TestBroker(BrokerSetup setup, int witness)
    : slot_count_(setup.gate_slots) {
  spdlog::set_level(spdlog::level::off);
  int ends[2];
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  UniqueFd map = GateMap(slot_count_);
  slots_ = static_cast<bpfgrant_gate_entry*>(
      mmap(nullptr, slot_count_ * sizeof(bpfgrant_gate_entry), PROT_READ,
           MAP_SHARED, map.get(), 0));
  UniqueFd listener = Listen(address_);
  parts_ = std::make_unique<Parts>(std::move(setup), UniqueFd(ends[0]),
                                   UniqueFd(ends[1]), std::move(map),
                                   std::move(listener), witness);
  thread_ = std::thread([this] { parts_->loop.Run(); });
}

TestBroker::~TestBroker() {
  // As the broker stops on SIGTERM.
  parts_->loop.Post([this] {
    parts_->gates.CloseAll();
    parts_->acceptor.Stop();
    parts_->pool.Stop();
    parts_->loader.Abandon();
    parts_->remains.Stop();
    parts_->service.Stop();
    parts_->loop.Exit(0);
  });
  thread_.join();
  EXPECT_EQ(OpenGates(), 0u);
  munmap(slots_, slot_count_ * sizeof(bpfgrant_gate_entry));
}

void TestBroker::Run(const std::function<void()>& work) {
  Moment done;
  parts_->loop.Post([&] {
    work();
    done.Happen();
  });
  done.Wait();
}

void TestBroker::WaitUntil(const char* what,
                           const std::function<bool(Parts&)>& condition) {
  const auto deadline = Clock::now() + kPatience;
  while (!Ask(condition)) {
    if (Clock::now() > deadline) {
      ADD_FAILURE() << "never: " << what;
      return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void TestBroker::Settle() {
  WaitUntil("the pool is settled",
            [](Parts& parts) { return parts.pool.Settled(); });
}

Holdings TestBroker::Look() {
  return Ask([](Parts& parts) {
    Holdings seen;
    seen.sessions = parts.acceptor.size();
    seen.grants = parts.ledger.size();
    seen.total = parts.ledger.total();
    seen.gates = parts.gates.used();
    for (const daemon::LoaderRequest& request : parts.scripted.requests()) {
      seen.loads += request.has_load();
      seen.attaches += request.has_attach();
    }
    return seen;
  });
}

uint64_t TestBroker::Refusals(v1::Reason reason) {
  return Ask([reason](Parts& parts) -> uint64_t {
    broker::Session administrator;
    administrator.administrator = true;
    const auto status = parts.service.Status(administrator, {});
    for (const v1::RefusalCount& count : status->refused()) {
      if (count.reason() == reason) return count.count();
    }
    return 0;
  });
}

uint64_t TestBroker::Slot(uint32_t slot) const {
  return std::atomic_ref<__u64>(slots_[slot].nonce).load();
}

size_t TestBroker::OpenGates() const {
  size_t open = 0;
  for (uint32_t slot = 0; slot < slot_count_; ++slot) open += Slot(slot) != 0;
  return open;
}

std::chrono::microseconds TestBroker::LoopTime() const {
  clockid_t clock;
  timespec used{};
  pthread_getcpuclockid(const_cast<std::thread&>(thread_).native_handle(),
                        &clock);
  clock_gettime(clock, &used);
  return std::chrono::seconds(used.tv_sec) +
         std::chrono::microseconds(used.tv_nsec / 1000);
}

uint32_t TestBroker::Replace(const daemon::Snapshot& snapshot) {
  return Ask([&](Parts& parts) {
    parts.scripted.handles = CountHandles(snapshot);
    return parts.granting.SetSnapshot(Read(snapshot));
  });
}

size_t CountOpenFds() {
  DIR* directory = opendir("/proc/self/fd");
  if (directory == nullptr) return 0;
  size_t count = 0;
  while (const dirent* entry = readdir(directory)) {
    if (entry->d_name[0] != '.') ++count;
  }
  closedir(directory);
  return count - 1;  // the directory's own
}

WireTest::WireTest() : fds_before_(CountOpenFds()) {
  int ends[2];
  EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
  observer_ = UniqueFd(ends[0]);
  witness_ = UniqueFd(ends[1]);
}

void WireTest::TearDown() {
  broker_.reset();
  witness_.reset();
  // Closed in this process, in its children, and in every queue.
  pollfd watch{observer_.get(), POLLIN, 0};
  EXPECT_EQ(poll(&watch, 1, static_cast<int>(kPatience.count())), 1)
      << "an fd that travelled is still open somewhere";
  observer_.reset();
  // The threads that keep grace periods end by themselves.
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (CountOpenFds() != fds_before_ &&
         std::chrono::steady_clock::now() < until) {
    usleep(1000);
  }
  EXPECT_EQ(CountOpenFds(), fds_before_);
}

TestBroker& WireTest::Start(BrokerSetup setup) {
  broker_.reset();
  broker_ = std::make_unique<TestBroker>(std::move(setup), witness_.get());
  broker_->Settle();
  return *broker_;
}

TestBroker& WireTest::StartWithout(bool daemon::Mitigations::*defence,
                                   BrokerSetup setup) {
  setup.mitigations.*defence = false;
  return Start(std::move(setup));
}

RawPeer WireTest::Open(User user) {
  RawPeer peer = Connect(user);
  EXPECT_TRUE(peer.Hello().frame.has_hello());
  return peer;
}

void WireTest::ExpectPoliteIsServed() {
  RawPeer polite = Open();
  const RawPeer::Received reply = polite.Acquire();
  EXPECT_TRUE(reply.frame.has_acquire()) << reply.frame.ShortDebugString();
  EXPECT_EQ(reply.fds.size(), 2u);
}

void WireTest::ExpectNothingLeft() {
  broker_->WaitUntil("nothing is left", [](TestBroker::Parts& parts) {
    return parts.acceptor.size() == 0 && parts.ledger.size() == 0;
  });
  EXPECT_EQ(broker_->OpenGates(), 0u);
}

UniqueFd WireTest::Sendable() const {
  return UniqueFd(fcntl(witness_.get(), F_DUPFD_CLOEXEC, 0));
}

}  // namespace bpfgrant::broker_test
