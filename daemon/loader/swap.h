// Swappable maps: an array of two maps, which the loader makes, and of which a
// program reaches the one that the gate's slot says
// (bpf-programs/include/bpfgrant/swap.bpf.h).

#ifndef DAEMON_LOADER_SWAP_H_
#define DAEMON_LOADER_SWAP_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "bpfgrant/v1/manifest.pb.h"
#include "daemon/loader/manifest.h"
#include "daemon/loader/map_shape.h"
#include "proto/wire/unique_fd.h"

struct bpf_map;
struct bpf_object;

namespace bpfgrant::daemon {

// The maps in that object whose handle is two.
bool HasSwaps(const v1::Manifest& manifest);

// Whether `map` is an array of two maps of the declared kind.
// REASON_OBJECT_MISMATCH, with the manifest's place: it is not.
absl::Status CheckSwappable(const bpf_map* map, const Manifest& manifest,
                            int index);

// Of a loaded object: whether its program gets at each swappable map by the
// header's function and in no other way, and whether the maps in it are left to
// the loader. Without that nobody could say which of the two a run has.
// REASON_OBJECT_MISMATCH: not so.
absl::Status CheckSwapAccess(const bpf_object* object,
                             const v1::Manifest& manifest);

// The two maps of each swappable map.
class Swaps {
 public:
  // What the object wants them to be; before its load, which forgets it.
  // `narrowed`: their fds get the manifest's rights and no more.
  Swaps(const bpf_object* object, const v1::Manifest& manifest, bool narrowed);

  // Makes them and puts them in place; after the load.
  // REASON_LOAD_FAILED: the kernel refused, with its errno. REASON_BUSY: it is
  // short of something.
  absl::Status Fill(const bpf_object* object);

  // The fd of one of the two of the map `name`, made by Fill.
  UniqueFd Take(const std::string& name, int copy);

 private:
  struct Pair {
    std::string name;
    MapShape shape;
    std::optional<v1::Rights> rights;  // to which its fds are narrowed
    UniqueFd maps[2];
  };
  std::vector<Pair> pairs_;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_SWAP_H_
