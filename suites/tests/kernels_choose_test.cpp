// The choice among ways to multiply, whose times a GPU would bring, by times that are made up here.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/cuda/choose.hpp"

namespace lockstep::cuda {
namespace {

// Ways and attempts of the next calls.
void expect_turns(Choice& choice, const std::vector<std::pair<int, int>>& turns) {
  for (const auto& [way, attempt] : turns) {
    const Choice::Turn turn = choice.next();
    EXPECT_EQ(turn.way, way) << "attempt " << attempt;
    EXPECT_EQ(turn.attempt, attempt) << "way " << way;
  }
}

TEST(Choice, TakesWaysInTurnTwiceAndKeepsTheFastest) {
  Choice choice(3);
  EXPECT_EQ(choice.attempts(), 6);
  const int ways[] = {0, 1, 2, 0, 1, 2};
  const float times[] = {9, 5, 6, 4, 5, 3};
  for (int i = 0; i < 6; ++i) {
    EXPECT_FALSE(choice.settled()) << i;
    EXPECT_EQ(choice.awaited(), -1) << i;
    expect_turns(choice, {{ways[i], i}});
    EXPECT_EQ(choice.awaited(), i);
    choice.took(times[i]);
  }
  EXPECT_TRUE(choice.settled());
  EXPECT_EQ(choice.best(), 2);
  expect_turns(choice, {{2, -1}, {2, -1}});
}

TEST(Choice, TheSmallerOfAWaysTimesCounts) {
  Choice slow_to_load(2), slow_again(2);
  for (int i = 0; i < 4; ++i) slow_to_load.next(), slow_again.next();
  for (const float time : {50.0f, 2.0f, 1.0f, 2.0f}) slow_to_load.took(time);
  for (const float time : {1.0f, 2.0f, 50.0f, 2.0f}) slow_again.took(time);
  EXPECT_EQ(slow_to_load.best(), 0);
  EXPECT_EQ(slow_again.best(), 0);
}

TEST(Choice, OfEqualOnesTheFirstStays) {
  Choice choice(3);
  for (int i = 0; i < 6; ++i) choice.next();
  for (const float time : {4.0f, 3.0f, 3.0f, 4.0f, 3.0f, 3.0f}) choice.took(time);
  EXPECT_EQ(choice.best(), 1);
}

// The host runs ahead of the GPU: calls go on, by the best that is known, until all times are there.
TEST(Choice, WhileTimesAreAwaitedTheBestSoFarIsTaken) {
  Choice choice(2);
  expect_turns(choice, {{0, 0}, {1, 1}, {0, 2}, {1, 3}, {0, -1}, {0, -1}});
  EXPECT_EQ(choice.awaited(), 0);
  choice.took(8);
  EXPECT_EQ(choice.awaited(), 1);
  choice.took(7);
  EXPECT_EQ(choice.awaited(), 2);
  EXPECT_FALSE(choice.settled());
  expect_turns(choice, {{1, -1}});
  choice.took(6);
  expect_turns(choice, {{0, -1}});
  EXPECT_FALSE(choice.settled());
  choice.took(9);
  EXPECT_TRUE(choice.settled());
  EXPECT_EQ(choice.awaited(), -1);
  expect_turns(choice, {{0, -1}});
}

TEST(Choice, AWayThatCannotIsNotTakenAgain) {
  Choice choice(4);
  expect_turns(choice, {{0, 0}, {1, 1}});
  EXPECT_TRUE(choice.drop(1));  // its attempt is not waited for
  expect_turns(choice, {{2, 2}, {3, 3}, {0, 4}, {2, 6}});
  choice.took(5);
  EXPECT_EQ(choice.awaited(), 2);
  EXPECT_TRUE(choice.drop(2));  // neither are those of a way that could at first
  EXPECT_EQ(choice.awaited(), 3);
  expect_turns(choice, {{3, 7}, {0, -1}});
  for (const float time : {9.0f, 8.0f, 3.0f}) choice.took(time);
  EXPECT_TRUE(choice.settled());
  EXPECT_EQ(choice.best(), 3);
}

TEST(Choice, TheFirstMayBeDroppedAndTheLastMayNot) {
  Choice choice(3);
  expect_turns(choice, {{0, 0}});
  EXPECT_TRUE(choice.drop(0));
  EXPECT_EQ(choice.best(), 1);
  expect_turns(choice, {{1, 1}});
  EXPECT_TRUE(choice.drop(1));
  EXPECT_TRUE(choice.settled());  // with nothing left to compare
  expect_turns(choice, {{2, -1}});
  EXPECT_FALSE(choice.drop(2));
  EXPECT_EQ(choice.best(), 2);
}

TEST(Choice, AWayMayBeDroppedBeforeItsTurn) {
  Choice choice(3);
  EXPECT_TRUE(choice.drop(0));
  expect_turns(choice, {{1, 1}, {2, 2}, {1, 4}, {2, 5}, {1, -1}});
}

TEST(Choice, ADroppedLastWayLeavesNothingToWaitFor) {
  Choice choice(3);
  for (int i = 0; i < 5; ++i) choice.next();
  for (const float time : {3.0f, 2.0f, 1.0f, 3.0f, 2.0f}) choice.took(time);
  EXPECT_FALSE(choice.settled());
  EXPECT_TRUE(choice.drop(2));
  EXPECT_TRUE(choice.settled());
  expect_turns(choice, {{1, -1}});
}

TEST(Choice, OfOneWayNothingIsTimed) {
  Choice choice;
  EXPECT_TRUE(choice.settled());
  expect_turns(choice, {{0, -1}, {0, -1}});
}

TEST(Choice, OfEightEachIsTried) {
  Choice choice(Choice::kMost);
  for (int round = 0; round < 2; ++round)
    for (int way = 0; way < 8; ++way) expect_turns(choice, {{way, 8 * round + way}});
  expect_turns(choice, {{0, -1}});
}

TEST(Choice, IsAskedForByOneOfTwoWords) {
  EXPECT_FALSE(timing_wished(nullptr));
  EXPECT_FALSE(timing_wished("first"));
  EXPECT_TRUE(timing_wished("timed"));
  for (const std::string word : {"nonsense", "", "Timed", "timed "}) try {
      timing_wished(word.c_str());
      ADD_FAILURE() << '"' << word << "\" was taken";
    } catch (const std::runtime_error& e) {
      EXPECT_EQ(e.what(), "device cuda: LOCKSTEP_MATMUL is first or timed, not " + word);
    }
}

}  // namespace
}  // namespace lockstep::cuda
