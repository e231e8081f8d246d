// Random numbers nobody can guess, from getrandom(2).

#ifndef DAEMON_BROKER_RANDOM_H_
#define DAEMON_BROKER_RANDOM_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace bpfgrant::broker {

// `size` random bytes.
std::string RandomBytes(size_t size);

// A random number other than 0.
uint64_t RandomNonzero();

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_RANDOM_H_
