// What most tests include, compiled once (Makefile: precompiled). A test still includes what it uses.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <vector>
