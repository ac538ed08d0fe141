#!/usr/bin/env escript
%% SPDX-License-Identifier: MIT
%% escript erlang.escript WORK N: prints seconds. Two processes in one virtual
%% machine, as programs in Erlang have them: messages are copied from heap to
%% heap, but binaries are shared, so there is no echo of strings here.
%%! +S 2
-mode(compile).

main([Work, Count]) ->
    N = list_to_integer(Count),
    Pool = {spawn_link(fun serve/0), spawn_link(fun serve/0)},
    1 = call(element(1, Pool), fun() -> 1 end),
    1 = call(element(2, Pool), fun() -> 1 end),
    case Work of
        "start" -> io:format("1~n");
        _ ->
            Run = prepare(Work, N, Pool),
            Start = erlang:monotonic_time(nanosecond),
            Run(),
            Time = erlang:monotonic_time(nanosecond) - Start,
            io:format("~.9f~n", [Time / 1.0e9])
    end.

%% Runs functions and answers what they return.
serve() ->
    receive
        {From, Ref, Fun} -> From ! {Ref, Fun()}, serve()
    end.

submit(Pid, Fun) ->
    Ref = make_ref(),
    Pid ! {self(), Ref, Fun},
    Ref.

await(Ref) ->
    receive {Ref, Value} -> Value end.

call(Pid, Fun) -> await(submit(Pid, Fun)).

prepare("lone.free", N, {Pid, _}) ->
    fun() -> [call(Pid, fun() -> ok end) || _ <- lists:seq(1, N)] end;
prepare("gather", N, Pool) ->
    fun() ->
        Refs = [submit(element(1 + I rem 2, Pool), fun() -> ok end)
                || I <- lists:seq(1, N)],
        [await(Ref) || Ref <- Refs]
    end;
prepare("map", N, {A, B}) ->
    List = [rand:uniform(1000000) || _ <- lists:seq(1, N)],
    fun() ->
        {First, Second} = lists:split(N div 2, List),
        Refs = [submit(P, fun() -> [X * X || X <- Part] end)
                || {P, Part} <- [{A, First}, {B, Second}]],
        lists:append([await(Ref) || Ref <- Refs])
    end;
prepare("doubles", N, {Pid, _}) ->
    List = [rand:uniform() || _ <- lists:seq(1, N)],
    fun() -> N = length(call(Pid, fun() -> List end)) end.
