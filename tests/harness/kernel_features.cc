#include "tests/harness/kernel_features.h"

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

namespace bpfgrant::test {

bool KernelHasLoops() {
  static const bool has = [] {
    std::ostringstream types;
    types << std::ifstream("/sys/kernel/btf/vmlinux").rdbuf();
    return types.view().find("io_uring_bpf_ops") != std::string_view::npos;
  }();
  return has;
}

int Times(int here, int emulated) {
  return std::getenv("BPFGRANT_TEST_EMULATED") == nullptr ? here : emulated;
}

}  // namespace bpfgrant::test
