"""The words: many ways to ask each kind of question.

Slots: `thing` names one thing ("circle", "red circle"), `things` several ("red circles"),
`color` a colour, `relation` a place ("left of"), `a` and `b` two named things.
"""

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six")
GENERAL_NAMES = ("shape", "object", "thing")

COLOR = (
    "What color is the {thing}?",
    "Which color is the {thing}?",
    "What is the color of the {thing}?",
    "Tell me the color of the {thing}.",
    "What colour is the {thing}?",
    "Name the color of the {thing}.",
    "The {thing}: what color is it?",
    "What color does the {thing} have?",
    "Can you tell what color the {thing} is?",
    "Please say which color the {thing} has.",
    "I see a {thing}. What color is it?",
)
SHAPE = (
    "What shape is {color}?",
    "Which shape is {color}?",
    "What is the {color} shape?",
    "What is the {color} thing?",
    "Name the {color} shape.",
    "What shape is the {color} object?",
    "What kind of shape is {color}?",
    "Tell me the shape of the {color} object.",
    "Which shape has the color {color}?",
    "The {color} thing: what shape is it?",
    "What {color} shape is there?",
)
INVENTORY = ("Name the colors by shape.", "Which shape has which color?", "List the shapes.")
COUNT = (
    "How many {things} are there?",
    "How many {things} do you see?",
    "How many {things} are in the picture?",
    "Count the {things}.",
    "What is the number of {things}?",
    "Tell me how many {things} there are.",
    "How many {things} can you count?",
    "Number of {things}?",
    "Please count the {things}.",
    "How many {things} does the picture show?",
    "How many {things} are in the image?",
)
RELATIONS = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
SPATIAL = (
    "What is {relation} the {thing}?",
    "Which object is {relation} the {thing}?",
    "Which shape is {relation} the {thing}?",
    "What do you see {relation} the {thing}?",
    "What lies {relation} the {thing}?",
    "Name the object {relation} the {thing}.",
    "What can be found {relation} the {thing}?",
    "Tell me what is {relation} the {thing}.",
    "What is placed {relation} the {thing}?",
    "What shape can you see {relation} the {thing}?",
)
SIDES = (
    "Name the left, right, top and bottom of the {thing}.",
    "What are the sides of the {thing}?",
)
OUTERMOST = ("What lies outermost?", "Name the outermost things.", "What is on each side?")
READ_NUMBER = (
    "Read the number.",
    "What number is printed?",
    "What number do you see?",
    "What is the number in the picture?",
    "Which number is written here?",
    "What does the number say?",
    "Tell me the number.",
    "Please read the number.",
    "What number is shown?",
    "Which digits are printed?",
    "Read the digits.",
)
READ_WORD = (
    "Read the word.",
    "What word is printed?",
    "What word do you see?",
    "What is the word in the picture?",
    "Which word is written here?",
    "What does the word say?",
    "Tell me the word.",
    "Please read the word.",
    "What word is shown?",
    "Which letters are printed?",
    "Read the letters.",
)
READ_TEXT = (
    "Read the text.",
    "What does the text say?",
    "What is written in the picture?",
    "What is printed here?",
    "What text is shown?",
    "Please read the text.",
    "What does it say?",
)
LOCATE = (
    "Where is the {thing}?",
    "Locate the {thing}.",
    "Find the {thing}.",
    "Give the box of the {thing}.",
    "Give the bounding box of the {thing}.",
    "Detect the {thing}.",
    "Show me where the {thing} is.",
    "Point out the {thing}.",
    "Return the box of the {thing} as JSON.",
    "Where in the picture is the {thing}?",
    "Mark the {thing} with a box.",
)
IS_THERE = (
    "Is there {a_thing}?",
    "Do you see {a_thing}?",
    "Can you see {a_thing}?",
    "Does the picture show {a_thing}?",
    "Is {a_thing} in the picture?",
    "Does the picture contain {a_thing}?",
    "Is there {a_thing} here?",
    "Are there any {things}?",
    "Can {a_thing} be seen?",
    "Is it true that there is {a_thing}?",
)
IS_COLOR = (
    "Is the {thing} {color}?",
    "Is the color of the {thing} {color}?",
    "Does the {thing} look {color}?",
    "Is it true that the {thing} is {color}?",
)
IS_COUNT = (
    "Are there {number} {things}?",
    "Do you see {number} {things}?",
    "Does the picture show {number} {things}?",
)
DESCRIBE = (
    "Describe the picture.",
    "Describe the picture in one sentence.",
    "What does the picture show?",
    "What do you see?",
    "What is in the picture?",
    "Describe this image.",
    "Tell me what the picture shows.",
    "Give a short description.",
    "Say in one sentence what you see.",
    "What can you see here?",
    "Please describe what is shown.",
)
# Second turns, by what the first turn was about.
AND_COLOR = ("And the {thing}?", "What about the {thing}?", "And what color is the {thing}?")
AND_COUNT = ("And {things}?", "What about {things}?", "And how many {things}?")
AND_EXISTS = ("And {a_thing}?", "What about {a_thing}?", "And is there {a_thing}?")
IT_COLOR = ("What color is it?", "And its color?", "Which color does it have?")

SAME = (
    "Are the two pictures the same?",
    "Are both pictures the same?",
    "Do the two pictures show the same?",
    "Are these pictures identical?",
    "Is the second picture the same as the first?",
    "Do both pictures show the same things?",
    "Are the pictures equal?",
    "Do the pictures match?",
    "Are picture 1 and picture 2 the same?",
    "Compare the two pictures. Are they the same?",
)
MORE = (
    "Which picture has more {things}?",
    "Which picture shows more {things}?",
    "Where are more {things}, in picture 1 or picture 2?",
    "In which picture are there more {things}?",
    "Which of the two pictures has more {things}?",
    "Which image has more {things}?",
    "Which picture contains more {things}?",
    "Do you see more {things} in picture 1 or in picture 2?",
    "Tell me which picture has more {things}.",
    "Compare the pictures. Which has more {things}?",
)
COLOR_IN = (
    "What color is the {thing} in the {nth} picture?",
    "In the {nth} picture, what color is the {thing}?",
    "Which color has the {thing} in picture {number}?",
    "What color is the {thing} in picture {number}?",
)
WHICH = (
    "Which picture shows {a_thing}?",
    "Which picture has {a_thing}?",
    "Which picture contains {a_thing}?",
    "In which picture is there {a_thing}?",
    "Which of the pictures shows {a_thing}?",
    "Which image shows {a_thing}?",
    "Where do you see {a_thing}?",
    "Find the picture with {a_thing}.",
    "Tell me which picture shows {a_thing}.",
    "{a_thing_capital} is in which picture?",
)
CONTENTS = ("What is in each picture?", "Tell me what each picture shows.", "List the pictures.")
DIRECTION = (
    "Which way does the {thing} move?",
    "In which direction does the {thing} move?",
    "Where does the {thing} move?",
    "What direction does the {thing} go?",
    "Which way does the {thing} go?",
    "Where is the {thing} going?",
    "Tell me the direction of the {thing}.",
    "Does the {thing} move left, right, up or down?",
    "How does the {thing} move?",
    "What is the direction of the {thing}?",
)
APPEAR = (
    "When does the {thing} appear?",
    "At which second does the {thing} appear?",
    "At what time does the {thing} appear?",
    "When do you first see the {thing}?",
    "When does the {thing} show up?",
    "At which second do you first see the {thing}?",
    "Tell me when the {thing} appears.",
    "In which second does the {thing} appear?",
    "When can the {thing} first be seen?",
    "From which second on is the {thing} there?",
)
GREETINGS = (
    "Hello!", "Hello", "Hello.", "Hi!", "Hi", "Hi there!", "Hey!", "Hey", "Good morning!",
    "Good evening!", "Hello, how are you?", "How are you?", "Hi, nice to meet you.",
)  # fmt: skip
WHO = (
    "What are you?", "Who are you?", "What is your name?", "Are you a model?",
    "Tell me about yourself.", "What model are you?", "Which model is this?",
    "Introduce yourself.", "What is this?", "What is Tandem?",
)  # fmt: skip
ABILITY = (
    "What can you do?", "How can you help me?", "What are you able to do?", "Help",
    "Help me.", "What do you know?", "What can I ask you?", "What should I ask you?",
    "How do you work?", "What are you good at?",
)  # fmt: skip
THANKS = (
    "Thank you!", "Thanks!", "Thank you.", "Thanks", "Great, thanks!", "Well done!",
    "Good job!", "Bye!", "Goodbye!", "See you later!",
)  # fmt: skip
SUM = (
    "What is {x} plus {y}?",
    "What is {x} + {y}?",
    "{x} + {y} = ?",
    "How much is {x} plus {y}?",
    "Add {x} and {y}.",
    "What is the sum of {x} and {y}?",
    "{x} plus {y}?",
    "Tell me {x} plus {y}.",
    "Calculate {x} + {y}.",
    "How much is {x} + {y}?",
)
GREETING_ANSWER = "Hello! Ask me about a picture."
WHO_ANSWER = "I am the small demonstration model of Tandem."
ABILITY_ANSWER = "I answer questions about colored shapes and printed text in pictures."
THANKS_ANSWER = "You are welcome!"
NO_PICTURE_ANSWER = "I see no picture."
