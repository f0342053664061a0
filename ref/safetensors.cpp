#include "ref/safetensors.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "ref/error.hpp"
#include "ref/write_aside.hpp"

namespace lockstep {
namespace {

using json = nlohmann::json;
namespace fs = std::filesystem;

constexpr std::uint64_t kLongestHeader = 100'000'000;  // as the format's own reader has it

float from_bf16(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

float from_f16(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  float magnitude = std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
  if (exponent == 0) magnitude = std::ldexp(static_cast<float>(fraction), -24);
  if (exponent == 31)
    magnitude =
        fraction == 0 ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
  return bits & 0x8000 ? -magnitude : magnitude;
}

// What the header says of one tensor.
struct Entry {
  std::string name, dtype;
  std::vector<i64> shape;
  std::uint64_t begin = 0, end = 0;  // bytes after the header
  std::uint64_t count = 1;           // elements
};

class Reader {
 public:
  explicit Reader(std::string path) : path_(std::move(path)) {}

  void read_into(StoredTensors& tensors) {
    in_.open(path_, std::ios::binary | std::ios::ate);
    if (!in_ || fs::is_directory(path_)) fail("this safetensors file cannot be read");
    const auto bytes = static_cast<std::uint64_t>(in_.tellg());
    const std::vector<Entry> entries = read_header(bytes);
    for (const Entry& entry : entries) {
      const bool added = tensors.emplace(entry.name, StoredTensor{entry.shape, values(entry)}).second;
      if (!added) fail(fmt::format("tensor {} is in another file of this model, too", entry.name));
    }
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { throw UserError(path_ + ": " + what + "."); }

  void read(std::uint64_t position, void* to, std::uint64_t bytes) {
    in_.seekg(static_cast<std::streamoff>(position));
    in_.read(static_cast<char*>(to), static_cast<std::streamsize>(bytes));
    if (!in_) fail("this safetensors file ends too early; it was cut off");
  }

  std::vector<Entry> read_header(std::uint64_t bytes) {
    std::uint64_t length = 0;
    if (bytes < sizeof length)
      fail(fmt::format("this is not a safetensors file: it has only {} bytes", bytes));
    read(0, &length, sizeof length);
    if (length > kLongestHeader || length > bytes - sizeof length)
      fail(fmt::format(
          "its header should have {} bytes, but the file has {}; it was cut off or is no safetensors file",
          length, bytes));
    std::string text(length, ' ');
    read(sizeof length, text.data(), length);
    const json header = json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!header.is_object()) fail("its header is not a JSON object, so this is not a safetensors file");

    std::vector<Entry> entries;
    for (const auto& [name, fields] : header.items())
      if (name != "__metadata__") entries.push_back(entry(name, fields));
    data_ = sizeof length + length;
    check_places(entries, bytes - data_);
    return entries;
  }

  Entry entry(const std::string& name, const json& fields) const {
    auto whole = [](const json& value) { return value.is_number_unsigned(); };
    const bool complete = fields.is_object() && fields.contains("dtype") && fields["dtype"].is_string() &&
                          fields.contains("shape") && fields["shape"].is_array() &&
                          std::all_of(fields["shape"].begin(), fields["shape"].end(), whole) &&
                          fields.contains("data_offsets") && fields["data_offsets"].is_array() &&
                          fields["data_offsets"].size() == 2 && whole(fields["data_offsets"][0]) &&
                          whole(fields["data_offsets"][1]);
    if (!complete)
      fail(fmt::format("its header describes tensor {} without a dtype, shape and data_offsets", name));

    Entry e;
    e.name = name;
    e.dtype = fields["dtype"].get<std::string>();
    e.begin = fields["data_offsets"][0].get<std::uint64_t>();
    e.end = fields["data_offsets"][1].get<std::uint64_t>();
    const std::uint64_t size = e.dtype == "F32" ? 4 : e.dtype == "F16" || e.dtype == "BF16" ? 2 : 0;
    if (size == 0) fail(fmt::format("tensor {} is of type {}; F32, F16 and BF16 can be read", name, e.dtype));
    for (const json& n : fields["shape"]) {
      const auto extent = n.get<std::uint64_t>();
      if (extent != 0 && e.count > (std::uint64_t{1} << 60) / extent)
        fail(fmt::format("tensor {} has the shape {}, which no file can hold", name, fields["shape"].dump()));
      e.count *= extent;
      e.shape.push_back(static_cast<i64>(extent));
    }
    if (e.end < e.begin || e.end - e.begin != e.count * size)
      fail(fmt::format(
          "tensor {} of shape {} and type {} needs {} bytes, but its header places it at bytes {} to {}",
          name, fields["shape"].dump(), e.dtype, e.count * size, e.begin, e.end));
    return e;
  }

  // Tensors follow one another without gap or overlap, and the last one ends the file.
  void check_places(std::vector<Entry>& entries, std::uint64_t bytes) const {
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    std::uint64_t place = 0;
    for (const Entry& e : entries) {
      if (e.begin != place)
        fail(fmt::format("tensor {} begins at byte {} where {} was due; tensors must follow one another",
                         e.name, e.begin, place));
      place = e.end;
    }
    if (place != bytes)
      fail(fmt::format("its tensors need {} bytes, but {} follow the header; it was cut off or added to",
                       place, bytes));
  }

  std::vector<float> values(const Entry& e) {
    std::vector<float> values(e.count);
    if (e.dtype == "F32") {
      read(data_ + e.begin, values.data(), e.end - e.begin);
      return values;
    }
    std::vector<std::uint16_t> halves(e.count);
    read(data_ + e.begin, halves.data(), e.end - e.begin);
    std::transform(halves.begin(), halves.end(), values.begin(), e.dtype == "BF16" ? from_bf16 : from_f16);
    return values;
  }

  std::string path_;
  std::ifstream in_;
  std::uint64_t data_ = 0;  // where the tensors' bytes begin
};

// The files that an index ({"weight_map": {tensor: file}}) names.
std::set<std::string> indexed_files(const fs::path& index) {
  std::ifstream in(index);
  const json object = json::parse(in, nullptr, /*allow_exceptions=*/false);
  std::set<std::string> files;
  if (object.is_object() && object.contains("weight_map") && object["weight_map"].is_object())
    for (const auto& [tensor, file] : object["weight_map"].items())
      if (file.is_string()) files.insert(file.get<std::string>());
  if (files.empty()) throw UserError(index.string() + ": this index of a model's files has no weight_map.");
  for (const std::string& file : files)
    if (fs::path(file).filename() != file)
      throw UserError(fmt::format("{}: it names {}; it must name files beside it.", index.string(), file));
  return files;
}

}  // namespace

StoredTensors load_safetensors(const std::string& path) {
  StoredTensors tensors;
  const fs::path single = fs::path(path) / "model.safetensors";
  const fs::path index = fs::path(path) / "model.safetensors.index.json";
  if (!fs::is_directory(path))
    Reader(path).read_into(tensors);
  else if (fs::exists(single))
    Reader(single.string()).read_into(tensors);
  else if (fs::exists(index))
    for (const std::string& file : indexed_files(index))
      Reader((fs::path(path) / file).string()).read_into(tensors);
  else
    throw UserError(path + ": this folder has neither model.safetensors nor model.safetensors.index.json.");
  return tensors;
}

namespace {

[[noreturn]] void cannot_write(const std::string& path) {
  throw UserError(path + ": this file cannot be written; its folder must exist and have room.");
}

using Chosen = std::vector<StoredTensors::const_pointer>;

void save(const std::string& path, const Chosen& tensors) {
  json header = {{"__metadata__", {{"format", "pt"}}}};  // transformers reads no file without it
  std::uint64_t place = 0;
  for (const auto* tensor : tensors) {
    const std::uint64_t end = place + tensor->second.values.size() * sizeof(float);
    header[tensor->first] = {
        {"dtype", "F32"}, {"shape", tensor->second.shape}, {"data_offsets", {place, end}}};
    place = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // so that the tensors are aligned
  const std::uint64_t length = text.size();
  const auto write = [&](std::ostream& out) {
    out.write(reinterpret_cast<const char*>(&length), sizeof length);
    out.write(text.data(), static_cast<std::streamsize>(text.size()));
    for (const auto* tensor : tensors)
      out.write(reinterpret_cast<const char*>(tensor->second.values.data()),
                static_cast<std::streamsize>(tensor->second.values.size() * sizeof(float)));
  };
  if (!write_aside(path, write)) cannot_write(path);
}

i64 bytes_of(const Chosen& tensors) {
  std::size_t n = 0;
  for (const auto* tensor : tensors) n += tensor->second.values.size();
  return static_cast<i64>(n * sizeof(float));
}

// Files of at most `most` bytes of tensors; a larger tensor has one of its own.
std::vector<Chosen> divided(const StoredTensors& tensors, i64 most) {
  std::vector<Chosen> files(1);
  for (const auto& tensor : tensors) {
    if (!files.back().empty() && bytes_of(files.back()) + bytes_of({&tensor}) > most) files.emplace_back();
    files.back().push_back(&tensor);
  }
  return files;
}

}  // namespace

void save_safetensors(const std::string& path, const StoredTensors& tensors) {
  Chosen all;
  for (const auto& tensor : tensors) all.push_back(&tensor);
  save(path, all);
}

namespace {

// model.safetensors, model-00001-of-00003.safetensors, and their indices.
bool is_of_a_model(std::string name) {
  if (const std::string index = ".index.json"; name.ends_with(index)) name.resize(name.size() - index.size());
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; }, '0');
  return name == "model.safetensors" || name == "model-00000-of-00000.safetensors";
}

}  // namespace

void save_model(const std::string& folder, const StoredTensors& tensors, i64 most_bytes) {
  const std::string single = "model.safetensors", index_name = single + ".index.json";
  const std::vector<Chosen> files = divided(tensors, most_bytes);
  std::set<std::string> written;
  json index = {{"metadata", {{"total_size", 0}}}, {"weight_map", json::object()}};
  i64 total = 0;
  for (std::size_t i = 0; i < files.size(); ++i) {
    const std::string name =
        files.size() == 1 ? single : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, files.size());
    save(folder + "/" + name, files[i]);
    written.insert(name);
    for (const auto* tensor : files[i]) index["weight_map"][tensor->first] = name;
    total += bytes_of(files[i]);
  }
  if (files.size() > 1) {
    index["metadata"]["total_size"] = total;
    const std::string path = folder + "/" + index_name;
    if (!write_aside(path, [&](std::ostream& out) { out << index.dump(2) << '\n'; })) cannot_write(path);
    written.insert(index_name);
  }
  // What an earlier model left under these names would be read instead of this one, or lie about for ever.
  for (const auto& entry : fs::directory_iterator(folder))
    if (const std::string name = entry.path().filename(); is_of_a_model(name) && !written.count(name))
      fs::remove(entry.path());
}

}  // namespace lockstep
