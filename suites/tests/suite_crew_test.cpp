// Several workers on one list: all requests are answered once, whatever becomes of a process.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "suites/crew.hpp"
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
