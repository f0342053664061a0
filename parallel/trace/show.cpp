// A rank's program as text: what `lockstep show` prints.
#include <fmt/format.h>

#include <map>

#include "parallel/trace/trace.hpp"

namespace lockstep {

std::string Trace::Event::title() const {
  if (what == action)
    return chunk < 0 ? name : fmt::format("{}: chunk {}, microbatch {}", name, chunk, microbatch);
  if (what != start) return name;
  std::string text =
      fmt::format("{} {} `{}`", verb_name(message.verb), axis_name(message.axis), message.what);
  if (message.peer >= 0) text += fmt::format(" peer {}", message.peer);
  if (message.microbatch >= 0) text += fmt::format(" microbatch {}", message.microbatch);
  return text;
}

std::string program(const Trace& trace, const Layouts& layouts) {
  static constexpr const char* media[] = {"arena", "host", "disk"};
  std::string out;
  std::map<int, std::string> names;
  std::map<int, i64> offsets;
  std::array<std::size_t, 3> takes{};  // so far, by medium
  std::size_t medium = 0;
  std::map<int, std::string> requests, copies;
  auto place = [&](int block, i64 first, Type type) {
    if (block < 0) return std::string("-");
    std::string text = fmt::format("{}#{}", names[block], block);
    if (first) text += fmt::format("+{}", first);
    return text + fmt::format("@{:#x}", offsets[block] + first * type_bytes(type));
  };
  for (std::size_t m = 0; m < layouts.size(); ++m)
    if (layouts[m].bytes)
      out +=
          fmt::format("{} {} bytes, at most {} alive at once\n", media[m], layouts[m].bytes, layouts[m].live);
  out += "\nset-up\n";
  for (const Trace::Event& e : trace.events) {
    switch (e.what) {
      case Trace::Event::step:
        out += "\nstep\n";
        break;
      case Trace::Event::action:
        out += fmt::format("\n{}\n", e.title());
        break;
      case Trace::Event::take:
        medium = static_cast<std::size_t>(medium_of(e.kind));
        names[e.block] = medium == 0 ? e.name : fmt::format("{}:{}", media[medium], e.name);
        offsets[e.block] = layouts[medium].places[takes[medium]++].offset;
        out += fmt::format("  take    {:<52} {:>12} bytes  {}\n", place(e.block, 0, Type::f32), e.bytes,
                           kind_name(e.kind));
        break;
      case Trace::Event::give:
        out += fmt::format("  give    {}\n", place(e.block, 0, Type::f32));
        break;
      case Trace::Event::relabel:
        out += fmt::format("  keep    {} as {}\n", place(e.block, 0, Type::f32), kind_name(e.kind));
        break;
      case Trace::Event::run: {
        std::string line = fmt::format("  run     {}(", e.name);
        for (std::size_t i = 0; i < e.views.size(); ++i)
          line += (i ? ", " : "") + place(e.views[i].block, e.views[i].first, e.views[i].type);
        line += ";";
        for (const double x : e.numbers) line += fmt::format(" {:g}", x);
        out += line + ")\n";
        break;
      }
      case Trace::Event::start: {
        const Message& m = e.message;
        const std::string text = fmt::format("{} {} x {} {}", e.title(), m.blocks, m.n, type_name(m.type));
        requests[e.request] = text;
        out += fmt::format("  start   {}: {} -> {}\n", text, place(e.ends[0], 0, m.type),
                           place(e.ends[1], 0, m.type));
        break;
      }
      case Trace::Event::copy: {
        const std::string text = fmt::format(
            "{}: {} <- {}, {:g}", e.name, place(e.views[0].block, e.views[0].first, e.views[0].type),
            place(e.views[1].block, e.views[1].first, e.views[1].type), e.numbers[0]);
        copies[e.request] = text;
        out += fmt::format("  copy    {}\n", text);
        break;
      }
      case Trace::Event::copied:
        out += fmt::format("  copied  {}\n", copies[e.request]);
        break;
      case Trace::Event::wait:
        out += fmt::format("  wait    {}\n", requests[e.request]);
        break;
    }
  }
  return out;
}

}  // namespace lockstep
