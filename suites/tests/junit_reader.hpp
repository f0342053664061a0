// JUnit XML as a reader that is not ours sees it.
#pragma once
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "suites/tests/temporary_folder.hpp"

namespace lockstep {

// What Python's parser of XML makes of the file: "tests failures errors", its testcases, and what is in them.
// The counts must be those of the elements, and no two testcases of one name, which readers would take for
// one.
inline std::string read_junit(const std::string& path) {
  const TemporaryFolder folder;
  const std::string script = folder.write(
      "read.py",
      "import sys, xml.etree.ElementTree as tree\n"
      "suite = tree.parse(sys.argv[1]).getroot().find('testsuite')\n"
      "for k, tag in dict(tests='testcase', failures='failure', errors='error', skipped='skipped').items():\n"
      "    assert int(suite.get(k)) == len(list(suite.iter(tag))), k\n"
      "names = [case.get('name') for case in suite.iter('testcase')]\n"
      "assert len(set(names)) == len(names), names\n"
      "print(*(suite.get(k) for k in ('tests', 'failures', 'errors')))\n"
      "for case in suite.iter('testcase'): print(case.get('name'), "
      "*(c.tag + ': ' + (c.text or c.get('message')) for c in case))\n");
  const std::string command = "python3 " + script + " " + path + " >" + folder.path() + "/out 2>&1";
  const int status = std::system(command.c_str());
  std::ostringstream text;
  text << std::ifstream(folder.path() + "/out").rdbuf();
  return (status == 0 ? "" : "not XML: ") + text.str();
}

}  // namespace lockstep
