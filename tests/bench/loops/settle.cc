#include "tests/bench/loops/settle.h"

#include <chrono>
#include <string>
#include <thread>

namespace bpfgrant::bench {
namespace {

// How many of each are ready, as text; "" if some have none.
std::string Ready(Connection& connection) {
  const auto list = connection.List();
  std::string ready;
  if (!list.ok()) return ready;
  for (const auto& program : list->program()) {
    if (!program.available()) continue;
    if (program.pool_ready() == 0) return "";
    ready += program.name() + " " + std::to_string(program.pool_ready()) + " ";
  }
  return ready;
}

}  // namespace

void Settle(Connection* connection) {
  if (connection == nullptr) return;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  std::string before = "?";
  // At rest is what stays as it is for longer than one load takes.
  for (int same = 0; same < 8 && std::chrono::steady_clock::now() < end;) {
    const std::string now = Ready(*connection);
    same = !now.empty() && now == before ? same + 1 : 0;
    before = now;
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
  }
}

}  // namespace bpfgrant::bench
