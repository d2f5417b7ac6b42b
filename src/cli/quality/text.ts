/**
 * What the quality of a precision is measured on: the kinds of text that teachers and students read. Written for this
 * purpose, so no model has it by heart. A change of it makes every stored figure be measured anew (store.ts).
 */
export const QUALITY_TEXT = `Why a kettle is slow and a kitchen is warm

Put a litre of cold tap water into an electric kettle and switch it on. For the first minute nothing seems to happen, then the metal begins to hiss, and after three or four minutes the lid rattles. Where did the time go? Water is unusually hard to heat. To make one kilogram of it one degree warmer takes about 4,186 joules, roughly ten times what the same weight of iron would need. Tap water in winter comes out at 12 degrees, so it has to climb 88 degrees before it boils.

Let us work it out step by step. The energy is the mass times the specific heat times the rise in temperature:

Q = m * c * (T2 - T1)
  = 1 kg * 4186 J/(kg K) * 88 K
  = 368,368 J

A kettle with a rating of 2,000 watts delivers 2,000 joules every second. Dividing the energy by the power gives 368,368 / 2,000 = 184 seconds, or three minutes and four seconds. If the stopwatch says 205 seconds instead, the missing 21 seconds were not lost by magic. They warmed the steel, the plastic, the air above the table and, in the end, the kitchen. The efficiency is 184 / 205, which is close to 0.90, so nine joules out of ten went where we wanted them.

What does a cup of tea cost? One kilowatt-hour is 1,000 watts for 3,600 seconds, that is 3,600,000 joules. At 30 cents per kilowatt-hour, the meter counts 2000 * 205 / 3,600,000 * 30 = 3.4 cents for our litre, the warm kitchen included. Half a litre costs half of that. Boiling twice as much water as you need is the most common way of wasting it.

The cooling of the tea afterwards follows a different law. The hotter a cup is compared with the room, the faster it loses heat, and so the difference shrinks by the same fraction in every minute. If d(t) is the difference after t minutes, then

d(t) = d(0) * exp(-k t).

Suppose the tea is poured at 92 degrees in a room of 20 degrees, and ten minutes later it is at 68. The difference has fallen from 72 to 48, so exp(-10 k) = 48 / 72 = 2/3, and k = ln(1.5) / 10, which is about 0.0405 per minute. After twenty minutes the difference is 72 * (2/3)^2 = 32, and the tea has 52 degrees: warm enough to drink, too cold to enjoy. Notice that it did not lose another 24 degrees in the second ten minutes but only 16.

The same numbers can be checked with a short program:

def temperature(start, room, k, minutes):
    """Newton's law of cooling, one step per minute."""
    value = start
    for _ in range(minutes):
        value = room + (value - room) * (1 - k)
    return value

for minutes in (0, 10, 20, 30):
    print(minutes, round(temperature(92.0, 20.0, 0.0397, minutes), 1))

The constant in the loop is 0.0397 and not 0.0405, because one step per minute takes away 1 - exp(-0.0405) of the difference. Whoever forgets this gets a result that is slightly too cold, and the error grows with the length of the step. So there are two lessons in one cup: a formula says what happens in the limit of very small steps, and a computer only ever takes steps of some size.
`;
