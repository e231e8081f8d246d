// Somebody hostile on the system bus, as nobody:
//
//   bus_client wait COUNT      calls Revoke on as many connections as it takes
//                              for COUNT calls at once; prints how many were
//                              refused at once, and holds the others until its
//                              input ends
//   bus_client leave COUNT     connects, calls Revoke and leaves, COUNT times
//   bus_client flood SECONDS   calls whatever there is without waiting
//   bus_client huge COUNT      sends strings of 16 MiB
//   bus_client wrong           says what no correct client says; prints the
//                              errors
//   bus_client own NAME        asks for the name; prints the error
//   bus_client listen          prints "listening", then each signal of the
//                              Manager's

#include <systemd/sd-bus.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "tests/harness/probe_privilege.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr char kName[] = "org.bpfgrant1";
constexpr char kPath[] = "/org/bpfgrant1";
constexpr char kManager[] = "org.bpfgrant1.Manager";
// What the daemon lets one connection have.
constexpr int kCallsPerConnection = 8;

sd_bus* Connect() {
  sd_bus* bus = nullptr;
  const int error = sd_bus_open_system(&bus);
  if (error >= 0) return bus;
  std::fprintf(stderr, "connect: %s\n", std::strerror(-error));
  std::exit(1);
}

int refused = 0;

int CountRefused(sd_bus_message* reply, void*, sd_bus_error*) {
  refused += sd_bus_message_is_method_error(reply, "org.bpfgrant1.Error.Busy");
  return 1;
}

void CallRevoke(sd_bus* bus) {
  sd_bus_call_method_async(bus, nullptr, kName, kPath, kManager, "Revoke",
                           CountRefused, nullptr, "ss", "program", "none");
}

// Until whatever was sent has passed the daemon: it answers in order.
void Settle(sd_bus* bus) {
  sd_bus_message* reply = nullptr;
  for (int i = 0; i < 2; ++i) {
    sd_bus_get_property(bus, kName, kPath, kManager, "Version", nullptr, &reply,
                        "s");
    sd_bus_message_unref(reply);
    reply = nullptr;
  }
  while (sd_bus_process(bus, nullptr) > 0) {
  }
}

int Wait(int count) {
  std::vector<sd_bus*> buses;
  for (int i = 0; i < count; ++i) {
    if (i % kCallsPerConnection == 0) buses.push_back(Connect());
    CallRevoke(buses.back());
    Settle(buses.back());
  }
  std::printf("refused %d of %d\n", refused, count);
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
  return 0;
}

int Leave(int count) {
  for (int i = 0; i < count; ++i) {
    sd_bus* bus = Connect();
    CallRevoke(bus);
    sd_bus_flush(bus);
    sd_bus_close_unref(bus);
  }
  return 0;
}

int Flood(int seconds) {
  const auto until = Clock::now() + std::chrono::seconds(seconds);
  std::vector<sd_bus*> buses;
  for (int i = 0; i < 4; ++i) buses.push_back(Connect());
  std::printf("flooding\n");
  std::fflush(stdout);
  uint64_t sent = 0;
  while (Clock::now() < until) {
    for (sd_bus* bus : buses) {
      sd_bus_call_method_async(bus, nullptr, kName, kPath,
                               "org.freedesktop.DBus.Properties", "GetAll",
                               CountRefused, nullptr, "s", kManager);
      sd_bus_call_method_async(bus, nullptr, kName, kPath, kManager, "List",
                               CountRefused, nullptr, "bs", 0, "");
      ++sent;
      while (sd_bus_process(bus, nullptr) > 0) {
      }
    }
  }
  std::printf("sent %llu\n", static_cast<unsigned long long>(sent));
  return 0;
}

int Huge(int count) {
  const std::string text(16 << 20, 'x');
  for (int i = 0; i < count; ++i) {
    sd_bus* bus = Connect();
    sd_bus_error error = SD_BUS_ERROR_NULL;
    sd_bus_call_method(bus, kName, kPath, kManager, "Check", &error, nullptr,
                       "s", text.c_str());
    std::printf("%s\n", error.name == nullptr ? "served" : error.name);
    sd_bus_error_free(&error);
    sd_bus_close_unref(bus);
  }
  return 0;
}

// One call with a body of `types`, whatever that means to the method.
template <typename... Arguments>
void Try(sd_bus* bus, const char* path, const char* interface,
         const char* method, const char* types, Arguments... arguments) {
  sd_bus_error error = SD_BUS_ERROR_NULL;
  sd_bus_call_method(bus, kName, path, interface, method, &error, nullptr,
                     types, arguments...);
  std::printf("%s %s: %s\n", method, types,
              error.name == nullptr ? "served" : error.name);
  sd_bus_error_free(&error);
}

int Wrong() {
  sd_bus* bus = Connect();
  Try(bus, kPath, kManager, "List", "");
  Try(bus, kPath, kManager, "List", "sb", "", 1);
  Try(bus, kPath, kManager, "Revoke", "s", "all");
  Try(bus, kPath, kManager, "Revoke", "ss", "grant", "seventeen");
  Try(bus, kPath, kManager, "Revoke", "ss", "all", "of them");
  Try(bus, kPath, kManager, "Revoke", "ss", "unit", "");
  Try(bus, kPath, kManager, "Explain", "sa{sv}", "x", 1, "pid", "s", "me");
  Try(bus, kPath, kManager, "Explain", "sa{sv}", "x", 1, "name", "s", "me");
  Try(bus, kPath, kManager, "Explain", "sa{sv}", "x", 2, "uid", "u", 1, "uid",
      "u", 0);
  Try(bus, kPath, kManager, "Explain", "sa{sv}", "x", 1, "groups", "as", 1,
      "wheel");
  Try(bus, kPath, kManager, "Acquire", "s", "packet_sampler");
  Try(bus, "/org/bpfgrant1/x", kManager, "List", "bs", 0, "");
  Try(bus, kPath, "org.freedesktop.DBus.Properties", "Set", "ssv", kManager,
      "Version", "s", "9");
  sd_bus_close_unref(bus);
  return 0;
}

int Own(const char* name) {
  sd_bus* bus = Connect();
  const int error = sd_bus_request_name(bus, name, 0);
  std::printf("%s\n", error < 0 ? std::strerror(-error) : "owned");
  sd_bus_close_unref(bus);
  return 0;
}

// "LastReload=ok" and so on.
void PrintChanged(sd_bus_message* signal) {
  sd_bus_message_skip(signal, "s");
  sd_bus_message_enter_container(signal, 'a', "{sv}");
  while (sd_bus_message_enter_container(signal, 'e', "sv") > 0) {
    const char* name = nullptr;
    const char* type = nullptr;
    const char* text = "";
    uint32_t number = 0;
    sd_bus_message_read(signal, "s", &name);
    sd_bus_message_peek_type(signal, nullptr, &type);
    if (*type == 's') {
      sd_bus_message_read(signal, "v", "s", &text);
      std::printf(" %s=%s", name, text);
    } else {
      sd_bus_message_read(signal, "v", "u", &number);
      std::printf(" %s=%u", name, number);
    }
    sd_bus_message_exit_container(signal);
  }
}

int PrintSignal(sd_bus_message* signal, void*, sd_bus_error*) {
  const std::string member = sd_bus_message_get_member(signal);
  std::printf("signal %s", member.c_str());
  if (member == "PropertiesChanged") {
    PrintChanged(signal);
  } else {
    uint64_t number = 0;
    const char* reason = nullptr;
    sd_bus_message_read(signal, "t", &number);
    std::printf(" %llu", static_cast<unsigned long long>(number));
    if (sd_bus_message_read(signal, "s", &reason) > 0) {
      std::printf(" %s", reason);
    }
    if (sd_bus_message_at_end(signal, 1) <= 0) std::printf(" and more");
  }
  std::printf("\n");
  std::fflush(stdout);
  return 1;
}

int Listen() {
  sd_bus* bus = Connect();
  sd_bus_match_signal(bus, nullptr, kName, kPath, nullptr, nullptr, PrintSignal,
                      nullptr);
  std::printf("listening\n");
  std::fflush(stdout);
  while (sd_bus_process(bus, nullptr) > 0 ||
         sd_bus_wait(bus, UINT64_MAX) >= 0) {
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  bpfgrant::test::AssertUnprivileged();
  const std::string verb = argc > 1 ? argv[1] : "";
  const char* argument = argc > 2 ? argv[2] : "";
  if (verb == "wait") return Wait(std::atoi(argument));
  if (verb == "leave") return Leave(std::atoi(argument));
  if (verb == "flood") return Flood(std::atoi(argument));
  if (verb == "huge") return Huge(std::atoi(argument));
  if (verb == "wrong") return Wrong();
  if (verb == "listen") return Listen();
  if (verb == "own") return Own(argument);
  return 2;
}
