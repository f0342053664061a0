#include "suites/planner/measure/calibration.hpp"

#include "reports/h5.hpp"
#include "reports/record.hpp"

namespace lockstep {

void write_measurements(const std::string& path, const MeasureHow& how, const Measurements& all) {
  h5::Writer file(path);
  RunRecord here;
  describe_machine(here);
  here.isa = how.isa;
  file.attribute("format", std::string("lockstep calibration"));
  file.attribute("version", i64{1});
  for (const auto& [name, text] :
       {std::pair{"revision", &here.revision}, std::pair{"compiler", &here.compiler},
        std::pair{"flags", &here.flags}, std::pair{"host", &here.host}, std::pair{"cpu", &here.cpu},
        std::pair{"isa", &here.isa}, std::pair{"started", &here.started}})
    file.attribute(name, *text);
  file.attribute("threads", i64{how.threads});
  file.attribute("device", how.accelerator ? how.accelerator->name() : std::string("cpu"));
  file.attribute("dtype", std::string(how.bf16 ? "bf16" : "float32"));
  const auto column = [&]<class T>(const char* name, const std::vector<T>& values) {
    file.write(name, values);
  };
  const auto of = [&](const auto& field) {
    std::vector<std::decay_t<decltype(field(all.front()))>> values;
    for (const Measurement& m : all) values.push_back(field(m));
    return values;
  };
  column("what", of([](const Measurement& m) { return m.what; }));
  column("name", of([](const Measurement& m) { return m.name; }));
  column("sizes", of([](const Measurement& m) { return m.sizes; }));
  column("ranks", of([](const Measurement& m) { return i64{m.ranks}; }));
  column("amount", of([](const Measurement& m) { return m.amount; }));
  column("seconds", of([](const Measurement& m) { return m.sample.seconds; }));
  column("spread", of([](const Measurement& m) { return m.sample.spread; }));
  column("calls", of([](const Measurement& m) { return static_cast<i64>(m.sample.calls); }));
  file.close();
}

}  // namespace lockstep
