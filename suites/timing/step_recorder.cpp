#include "suites/timing/step_recorder.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <sstream>

namespace lockstep {

void StepRecorder::begins(const char* action, int chunk, int microbatch) {
  mark({Clock::now(), Mark::action, action, chunk, microbatch});
}
void StepRecorder::waits(const char* stream) { mark({Clock::now(), Mark::wait, stream, -1, -1}); }
void StepRecorder::goes_on() { mark({Clock::now(), Mark::on, "", -1, -1}); }
void StepRecorder::ends() { mark({Clock::now(), Mark::end, "", -1, -1}); }

std::string StepRecorder::since(Clock::time_point begin) const {
  std::string text;
  for (const Mark& m : marks_)
    text += fmt::format("{} {} {} {} {}\n", (m.at - begin).count(), static_cast<int>(m.what), m.chunk,
                        m.microbatch, m.name);
  return text;
}

StepRecorder StepRecorder::of(const std::string& marks, Clock::time_point begin) {
  static std::set<std::string> names;  // as long as marks may point to them
  StepRecorder recorder;
  std::istringstream lines(marks);
  Clock::rep at;
  int what;
  Mark m{};
  for (std::string name;
       lines >> at >> what >> m.chunk >> m.microbatch && lines.get() && std::getline(lines, name);) {
    m.at = begin + Clock::duration(at);
    m.what = static_cast<decltype(m.what)>(what);
    m.name = names.insert(name).first->c_str();
    recorder.mark(m);
  }
  return recorder;
}

Timeline timeline_of(const std::vector<StepRecorder>& ranks, const Mesh& mesh) {
  using Mark = StepRecorder::Mark;
  Timeline t;
  StepRecorder::Clock::time_point first = StepRecorder::Clock::time_point::max(), last{};
  for (const StepRecorder& r : ranks)
    if (!r.marks_.empty())
      first = std::min(first, r.marks_.front().at), last = std::max(last, r.marks_.back().at);
  const auto seconds = [&](const Mark& m) { return std::chrono::duration<double>(m.at - first).count(); };
  t.seconds = std::chrono::duration<double>(last - first).count();
  const std::vector<int> shown = one_of_each_stage(mesh);
  for (int rank = 0; rank < mesh.size(); ++rank) {
    std::map<std::string, std::vector<Timeline::Bar>> waiting;  // by stream
    std::vector<Timeline::Bar> computing;
    const std::vector<Mark>& marks = ranks[rank].marks_;
    const Mark* pass = nullptr;
    for (std::size_t i = 0; i + 1 < marks.size(); ++i) {
      const Mark& m = marks[i];
      if (m.what == Mark::action) pass = &m;
      const double from = seconds(m), to = seconds(marks[i + 1]);
      const std::string name = pass ? pass->name : "";
      const Timeline::Bar bar{from, to, name, pass ? pass->chunk : -1, pass ? pass->microbatch : -1};
      const bool waits = m.what == Mark::wait;
      (waits ? waiting[m.name] : computing).push_back(bar);
      t.parts[waits ? m.name : name == "update" ? "update" : "compute"] += (to - from) / mesh.size();
    }
    if (std::find(shown.begin(), shown.end(), rank) == shown.end()) continue;
    t.streams.push_back({rank, "compute", std::move(computing)});
    for (auto& [name, bars] : waiting) t.streams.push_back({rank, name, std::move(bars)});
  }
  close_gaps(t);
  return t;
}

}  // namespace lockstep
