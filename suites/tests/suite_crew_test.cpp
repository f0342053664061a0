// Several workers on one list: all requests are answered once, whatever becomes of a process.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <new>
#include <set>
#include <thread>

#include "kernels/cores.hpp"
#include "suites/sweep/crew.hpp"
#include "suites/tests/temporary_folder.hpp"

namespace lockstep {
namespace {

using End = Answer::End;

struct Heard {
  std::map<std::size_t, Answer> answers;
  std::map<std::size_t, int> begun;
  std::size_t most_at_once = 0;
};

Heard ask(Crew& crew, const std::vector<std::string>& requests, std::size_t stop_after = 1000) {
  Heard heard;
  crew.ask(requests, {.go_on = [&] { return heard.answers.size() < stop_after; },
                      .begun =
                          [&](std::size_t i) {
                            ++heard.begun[i];
                            heard.most_at_once =
                                std::max(heard.most_at_once, heard.begun.size() - heard.answers.size());
                          },
                      .ended =
                          [&](std::size_t i, const Answer& answer, double seconds) {
                            EXPECT_GE(seconds, 0);
                            EXPECT_TRUE(heard.answers.emplace(i, answer).second) << i << " ended twice";
                          }});
  return heard;
}

std::vector<std::string> numbers(int n) {
  std::vector<std::string> requests;
  for (int i = 0; i < n; ++i) requests.push_back(std::to_string(i));
  return requests;
}

// This process's, from before any worker.
const std::vector<int>& core_numbers_of_all() {
  static const std::vector<int> all = core_numbers();
  return all;
}
// What a worker's threads may run on.
std::string cores_text(const std::string&) {
  std::string text;
  std::thread([&] {
    for (const int core : core_numbers()) text += std::to_string(core) + " ";
  }).join();
  return text;
}
std::string text_of(const std::vector<int>& cores) {
  std::string text;
  for (const int core : cores) text += std::to_string(core) + " ";
  return text;
}

TEST(Crew, EachWorkerKeepsToItsPartOfTheCores) {
  const std::vector<int> all = core_numbers();
  if (all.size() < 2) GTEST_SKIP() << "there is one core";
  const auto body = [](const std::string& r) {
    usleep(20000);  // so that both have something to do
    return cores_text(r);
  };
  Crew two(2, body, {60, i64{1} << 40}), one(1, body, {60, i64{1} << 40});
  std::set<std::string> seen;
  for (const auto& [i, answer] : ask(two, numbers(8)).answers) seen.insert(answer.text);
  EXPECT_EQ(seen,
            (std::set<std::string>{text_of(cores_of_part(all, 0, 2)), text_of(cores_of_part(all, 1, 2))}));
  for (const auto& [i, answer] : ask(one, numbers(2)).answers) EXPECT_EQ(answer.text, text_of(all));
}

// Asked again, alone, it has all of them.
TEST(Crew, WhoIsAloneInTheEndHasAllCores) {
  if (core_numbers_of_all().size() < 2) GTEST_SKIP() << "there is one core";
  Crew crew(2,
            [](const std::string& r) {
              if (r == "0" && cores_text(r) != text_of(core_numbers_of_all())) usleep(2000000);
              return cores_text(r);
            },
            {0.5, i64{1} << 40});
  const Heard heard = ask(crew, numbers(3));
  EXPECT_EQ(heard.answers.at(0).end, End::answered) << heard.answers.at(0).text;
  EXPECT_EQ(heard.answers.at(0).text, text_of(core_numbers_of_all()));
}

TEST(Crew, AnswersEachRequestOnceByAsManyProcessesAsItHas) {
  Crew crew(3, [](const std::string& r) { return r + " " + std::to_string(getpid()); }, {60, i64{1} << 40});
  const Heard heard = ask(crew, numbers(20));
  ASSERT_EQ(heard.answers.size(), 20u);
  EXPECT_EQ(heard.most_at_once, 3u);
  std::set<std::string> processes;
  for (const auto& [i, answer] : heard.answers) {
    EXPECT_EQ(answer.end, End::answered);
    EXPECT_TRUE(answer.text.starts_with(std::to_string(i) + " "));
    processes.insert(answer.text.substr(answer.text.find(' ')));
    EXPECT_EQ(heard.begun.at(i), 1);
  }
  EXPECT_EQ(processes.size(), 3u);
}

TEST(Crew, BeginsNothingMoreWhenToldSo) {
  Crew crew(2, [](const std::string& r) { return r; }, {60, i64{1} << 40});
  const Heard heard = ask(crew, numbers(20), 4);
  EXPECT_GE(heard.answers.size(), 4u);
  EXPECT_LE(heard.answers.size(), 5u);  // what was at work then comes to its end
  EXPECT_EQ(heard.answers.size(), heard.begun.size());
}

TEST(Crew, WhoWasKilledIsAskedOnceMore) {
  const TemporaryFolder folder;
  Crew crew(2,
            [&](const std::string& r) {
              const std::string mark = folder.path() + "/" + r;
              if (r == "1" || (r == "3" && !std::filesystem::exists(mark))) {
                std::ofstream(mark) << "here";
                raise(SIGKILL);
              }
              return r;
            },
            {60, i64{1} << 40});
  const Heard heard = ask(crew, numbers(5));
  ASSERT_EQ(heard.answers.size(), 5u);
  for (const auto& [i, answer] : heard.answers)
    EXPECT_EQ(answer.end, i == 1 ? End::killed : End::answered) << i;  // 1 again and again
}

// Beside others a limit may be their fault: alone it counts, and comes last.
TEST(Crew, WhoRanIntoALimitIsAskedAgainAlone) {
  const TemporaryFolder folder;
  Crew crew(2,
            [&](const std::string& r) {
              const std::string mark = folder.path() + "/" + r;
              const bool again = std::filesystem::exists(mark);
              std::ofstream(mark) << "here";
              if (r == "0" || (r == "1" && !again)) throw std::bad_alloc();
              return r;
            },
            {60, i64{1} << 40});
  const Heard heard = ask(crew, numbers(4));
  ASSERT_EQ(heard.answers.size(), 4u);
  EXPECT_EQ(heard.answers.at(0).end, End::out_of_memory);
  EXPECT_EQ(heard.answers.at(1).end, End::answered);
  EXPECT_EQ(heard.begun, (std::map<std::size_t, int>{{0, 2}, {1, 2}, {2, 1}, {3, 1}}));
}

}  // namespace
}  // namespace lockstep
