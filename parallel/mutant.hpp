// Real bugs of other trainers that no single call of the device can show, to be switched on by name. Only a
// test build has them (suites/mutants/named.cpp); elsewhere nothing is left of it.
#pragma once

namespace lockstep {

#ifdef LOCKSTEP_MUTANTS
bool mutant(const char* name);
#else
constexpr bool mutant(const char*) { return false; }
#endif

}  // namespace lockstep
