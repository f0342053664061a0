#include "suites/planner/measure/measure_links.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "parallel/device/disk.hpp"
#include "suites/planner/measure/measure_messages.hpp"
#include "suites/planner/measure/rates.hpp"

namespace lockstep {
void measure_messages(const MeasureHow& how, Cluster& c, Measurements& notes) {
  c.messages_block = true;
  for (const Verb verb : {Verb::all_reduce, Verb::reduce_scatter, Verb::all_gather, Verb::all_to_all,
                          Verb::broadcast, Verb::send, Verb::recv}) {
    const std::size_t from = notes.size();
    for (i64 n = 2; n <= (i64{1} << 22); n *= how.quick ? 128 : 8) {
      const MessageSample s = message_sample(verb, 2, n, how.far);
      for (const auto& [what, sample] :
           {std::pair{"message start", &s.start}, std::pair{"message wait", &s.wait}})
        notes.push_back({what, verb_name(verb), std::to_string(n), 2, s.bytes, *sample});
    }
    c.carried[verb_name(verb)] = {rates_of(notes, from, "message start"),
                                  rates_of(notes, from, "message wait")};
  }
  // For what speaks of a link: what an all_reduce comes to, with two ranks the payload once each way.
  c.node.bandwidth = highest(c.carried["all_reduce"].wait);
}

void measure_copies(const MeasureHow& how, Cluster& c, Measurements& notes) {
  const std::size_t from = notes.size();
  const std::size_t room = static_cast<std::size_t>(how.far / 2);
  for (std::size_t bytes = 256; bytes <= (std::size_t{1} << 26); bytes *= how.quick ? 64 : 4) {
    std::vector<char> source(room + bytes, 1), target(room + bytes);
    std::size_t at = 0;
    const Sample s = sample([&] {
      std::memcpy(target.data() + at, source.data() + at, bytes);
      at = at + bytes > room ? 0 : at + bytes;
    });
    notes.push_back({"copy", "memcpy", std::to_string(bytes), 1, static_cast<double>(bytes), s});
  }
  set_rates(c.host, rates_of(notes, from, "copy"));
  c.copies_block = true;
}

void measure_disk(const MeasureHow& how, Cluster& c, Measurements& notes) {
  const std::filesystem::path folder = how.scratch.empty() ? temporary_folder() : how.scratch;
  const std::string path = (folder / fmt::format("lockstep-disk-{}", ::getpid())).string();
  std::vector<char> block(std::size_t{1} << 20, 'x');
  constexpr int kBlocks = 64;
  std::vector<double> seconds;
  for (int batch = 0; batch < 3; ++batch) {
    std::FILE* file = std::fopen(path.c_str(), "wb");
    if (!file) return;
    const auto start = std::chrono::steady_clock::now();
    bool written = true;
    for (int i = 0; i < kBlocks && written; ++i)
      written = std::fwrite(block.data(), 1, block.size(), file) == block.size();
    written &= std::fclose(file) == 0;
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    if (!written) {  // a full disk is fast at refusing
      seconds.clear();
      break;
    }
  }
  std::filesystem::remove(path);
  if (seconds.empty()) return;
  const double bytes = kBlocks * static_cast<double>(block.size());
  notes.push_back({"disk", "write", std::to_string(block.size()), 1, bytes, sample_of(seconds, 3)});
  c.disk.bandwidth = bytes / notes.back().sample.seconds;
  // Where storage has no end, file systems name a number that nobody could fill.
  c.disk_bytes = std::min(static_cast<double>(std::filesystem::space(folder).available), 1e15);
}

}  // namespace lockstep
