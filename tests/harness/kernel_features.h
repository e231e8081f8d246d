// What the kernel that runs the tests can do. Read apart from the daemon's own
// reading of the same.

#ifndef TESTS_HARNESS_KERNEL_FEATURES_H_
#define TESTS_HARNESS_KERNEL_FEATURES_H_

namespace bpfgrant::test {

// Whether it lets BPF programs drive an io_uring (Linux 7.1).
bool KernelHasLoops();

// How often to do what takes long: `emulated` in an emulated machine
// (tests/vm/run), which is some twenty times slower.
int Times(int here, int emulated);

}  // namespace bpfgrant::test

#endif  // TESTS_HARNESS_KERNEL_FEATURES_H_
