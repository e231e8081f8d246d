#include "proto/text/place_tree.h"

#include <cstddef>
#include <string>
#include <string_view>

#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"

namespace bpfgrant {
namespace {

using google::protobuf::io::ArrayInputStream;
using google::protobuf::io::ColumnNumber;
using google::protobuf::io::ErrorCollector;
using google::protobuf::io::Tokenizer;

class IgnoreErrors : public ErrorCollector {
 public:
  void AddError(int, ColumnNumber, const std::string&) override {}
};

// The tokens of a text as TextFormat's parser sees them.
class Tokens {
 public:
  explicit Tokens(std::string_view bytes)
      : stream_(bytes.data(), static_cast<int>(bytes.size())),
        tokenizer_(&stream_, &ignore_errors_) {
    // The dialect of TextFormat (Parser::ParserImpl in text_format.cc).
    tokenizer_.set_allow_f_after_float(true);
    tokenizer_.set_comment_style(Tokenizer::SH_COMMENT_STYLE);
    tokenizer_.set_require_space_after_number(false);
    tokenizer_.set_allow_multiline_strings(true);
    tokenizer_.Next();
  }

  void Next() { tokenizer_.Next(); }
  const std::string& Text() { return tokenizer_.current().text; }
  Place Here() {
    return {tokenizer_.current().line + 1, tokenizer_.current().column + 1};
  }
  bool AtEnd() { return tokenizer_.current().type == Tokenizer::TYPE_END; }
  bool AtString() {
    return tokenizer_.current().type == Tokenizer::TYPE_STRING;
  }
  bool At(std::string_view symbol) {
    return tokenizer_.current().type == Tokenizer::TYPE_SYMBOL &&
           Text() == symbol;
  }
  bool Take(std::string_view symbol) {
    if (!At(symbol)) return false;
    Next();
    return true;
  }

 private:
  IgnoreErrors ignore_errors_;
  ArrayInputStream stream_;
  Tokenizer tokenizer_;
};

PlaceTree& Add(PlaceTree& tree, const std::string& name, Place place) {
  PlaceTree& added = tree.fields[name].emplace_back();
  added.place = place;
  return added;
}

// Both below take a token or stop, each time round, and stop at the end.
void ReadMessage(Tokens& tokens, PlaceTree& tree);

void ReadValue(Tokens& tokens, PlaceTree& tree) {
  if (tokens.Take("{") || tokens.Take("<")) {
    ReadMessage(tokens, tree);
    tokens.Next();
    return;
  }
  tokens.Take("-");
  // Strings side by side are one string.
  const bool string = tokens.AtString();
  tokens.Next();
  while (string && tokens.AtString()) tokens.Next();
}

// The fields up to the end of the text or of the enclosing message.
void ReadMessage(Tokens& tokens, PlaceTree& tree) {
  while (!tokens.AtEnd() && !tokens.At("}") && !tokens.At(">")) {
    const Place place = tokens.Here();
    const std::string name = tokens.Text();
    tokens.Next();
    tokens.Take(":");
    if (tokens.Take("[")) {
      while (!tokens.AtEnd() && !tokens.Take("]")) {
        if (tokens.Take(",")) continue;
        ReadValue(tokens, Add(tree, name, tokens.Here()));
      }
    } else {
      ReadValue(tokens, Add(tree, name, place));
    }
    if (!tokens.Take(",")) tokens.Take(";");
  }
}

}  // namespace

const PlaceTree* PlaceTree::Find(std::string_view field, int index) const {
  const auto found = fields.find(field);
  if (found == fields.end()) return nullptr;
  const size_t element = index < 0 ? 0 : static_cast<size_t>(index);
  if (element >= found->second.size()) return nullptr;
  return &found->second[element];
}

PlaceTree ReadPlaces(std::string_view bytes) {
  PlaceTree tree;
  Tokens tokens(bytes);
  ReadMessage(tokens, tree);
  return tree;
}

Place TokenBefore(std::string_view bytes, Place place) {
  Place before = place;
  for (Tokens tokens(bytes); !tokens.AtEnd(); tokens.Next()) {
    if (tokens.Here() >= place) break;
    before = tokens.Here();
  }
  return before;
}

}  // namespace bpfgrant
