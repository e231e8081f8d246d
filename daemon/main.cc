#include "daemon/run.h"

int main(int argc, char** argv) {
  return bpfgrant::daemon::Run(argc, argv, bpfgrant::daemon::Mitigations());
}
