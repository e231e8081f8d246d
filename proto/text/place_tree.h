// Where each field of a text-format file stands: protobuf's own record of it
// has one place for a whole list (`user: ["a", "b"]`), and does not tell that a
// field was given twice when the first value was the default.
//
// It must not judge: that is the parser's business.

#ifndef PROTO_TEXT_PLACE_TREE_H_
#define PROTO_TEXT_PLACE_TREE_H_

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "proto/text/text_file.h"

namespace bpfgrant {

struct PlaceTree {
  // Of the field's name; of a list's element: of that element.
  Place place;
  // By field name, in the order of the file. A list adds one for each element.
  std::map<std::string, std::vector<PlaceTree>, std::less<>> fields;

  // Element `index` of a field (-1: the first); nullptr if there is none.
  const PlaceTree* Find(std::string_view field, int index) const;
};

// Reads text that google::protobuf::TextFormat::Parser has accepted, and whose
// depth is therefore limited. Other text gives an incomplete tree, no failure.
PlaceTree ReadPlaces(std::string_view bytes);

// Where the token in front of `place` begins; `place` if there is none. For any
// text.
Place TokenBefore(std::string_view bytes, Place place);

}  // namespace bpfgrant

#endif  // PROTO_TEXT_PLACE_TREE_H_
