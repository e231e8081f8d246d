// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// programs [SOCKET]: the programs that this process may have, with the library
// in C++; takes one of those that it names, to show that it can.

#include <cstdio>
#include <string>

#include "bpfgrant/programs/packet_sampler.h"
#include "client/bpfgrant/connection.h"
#include "client/bpfgrant/mapped_array.h"
#include "proto/refusal/refusal.h"

namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "programs: %s (%s)\n",
               std::string(status.message()).c_str(),
               bpfgrant::ReasonName(bpfgrant::ReasonOf(status)).c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  bpfgrant::Connection::Options options;
  if (argc > 1) options.path = argv[1];
  auto connection = bpfgrant::Connection::Connect(options);
  if (!connection.ok()) return Fail(connection.status());
  const auto programs = connection->List();
  if (!programs.ok()) return Fail(programs.status());
  for (const auto& program : programs->program()) {
    std::printf("%s: %s\n", program.interface().c_str(),
                program.description().c_str());
  }

  auto grant =
      connection->Acquire({.program = "packet_sampler",
                           .interface = PACKET_SAMPLER_INTERFACE,
                           .interface_hash = PACKET_SAMPLER_INTERFACE_HASH,
                           .handles = {"config"}});
  if (!grant.ok()) return Fail(grant.status());
  const auto handle = grant->Find("config");
  if (!handle.ok()) return Fail(handle.status());
  const auto config = bpfgrant::MappedArray::Map(**handle);
  if (!config.ok()) return Fail(config.status());
  const auto* now = config->At<packet_sampler_config>(0);
  std::printf("config: %u bytes of one in %u\n", now->snap_length, now->one_in);
  return 0;
}
