# Rails' ActiveRecord with its defaults: prepared statements, and migrations under an advisory lock.
#
# Prints `ok NAME`, `not ok NAME: why` and `note NAME: what` lines; DATABASE_URL is what is tested, DIRECT_URL is PostgreSQL
# itself, POOL_SIZE is set when a pooler is in between.

require 'active_record'
require 'timeout'
require 'tmpdir'

CHECK_SECONDS = 60
THREADS = 20
ROUNDS = 10
POOL_SIZE = ENV.fetch('POOL_SIZE', '0').to_i

ActiveRecord::Base.establish_connection(url: ENV.fetch('DATABASE_URL'), pool: THREADS + 1)
ActiveRecord::Migration.verbose = false

class Direct < ActiveRecord::Base
  self.abstract_class = true
  establish_connection(ENV.fetch('DIRECT_URL'))
end

class Dish < ActiveRecord::Base
  self.table_name = 'rails_dishes'
  has_many :notes, dependent: :destroy
end

class Note < ActiveRecord::Base
  self.table_name = 'rails_notes'
  belongs_to :dish
end

CHECKS = {}

def check(name, &run)
  CHECKS[name] = run
end

def same(got, wanted)
  raise "#{got.inspect} instead of #{wanted.inspect}" unless got == wanted
end

def connection
  ActiveRecord::Base.connection
end

def pid
  connection.select_value('SELECT pg_backend_pid()')
end

# Runs the block in many threads, each with a connection of its own; what they return.
def at_once(count = THREADS)
  threads = Array.new(count) do |n|
    Thread.new { ActiveRecord::Base.connection_pool.with_connection { yield n } }
  end
  threads.map(&:value)
end

check('defaults_are_those_of_rails') do
  same(connection.prepared_statements?, true)
  same(connection.advisory_locks_enabled?, true)
end

check('prepared_statements_work_across_servers') do
  dish = Dish.create!(name: 'soup', price: 1)
  pids = at_once do |n|
    Array.new(ROUNDS) do |turn|
      same(Dish.find(dish.id).name, 'soup')
      same(Dish.where(name: 'soup', price: 1..(n + 1)).order(:id).limit(1).pluck(:id), [dish.id])
      same(Note.create!(dish: dish, text: "#{n} #{turn}").reload.text, "#{n} #{turn}")
      pid
    end
  end.flatten.uniq
  if POOL_SIZE.positive?
    raise "#{pids.size} servers for a pool of #{POOL_SIZE}" unless pids.size.between?(2, POOL_SIZE)
  end
  same(Note.where(dish: dish).distinct.count(:text), THREADS * ROUNDS)
  prepared = Dish.transaction { connection.select_value('SELECT count(*) FROM pg_prepared_statements') }
  raise 'nothing was prepared' unless prepared.positive?
end

check('prepared_statements_outlive_a_change_of_their_table') do
  dish = Dish.create!(name: 'changing', price: 2)
  3.times { same(Dish.find_by(name: 'changing').price, 2) }
  3.times do |turn|
    connection.execute("ALTER TABLE rails_dishes ADD COLUMN extra#{turn} int DEFAULT 7")
    same(Dish.find_by(name: 'changing').id, dish.id)
  end
  3.times { |turn| connection.execute("ALTER TABLE rails_dishes DROP COLUMN extra#{turn}") }
  same(Dish.find_by(name: 'changing').id, dish.id)
end

check('transactions_and_savepoints') do
  Dish.transaction do
    Dish.create!(name: 'kept', price: 1)
    Dish.transaction(requires_new: true) do
      Dish.create!(name: 'undone', price: 1)
      raise ActiveRecord::Rollback
    end
    Dish.create!(name: 'kept', price: 2)
  end
  same(Dish.where(name: %w[kept undone]).order(:price).pluck(:name, :price), [['kept', 1], ['kept', 2]])
  begin
    Dish.transaction { Dish.create!(name: 'lost', price: 1) && raise('undo') }
  rescue RuntimeError => error
    same(error.message, 'undo')
  end
  same(Dish.exists?(name: 'lost'), false)
  begin
    Dish.create!(id: Dish.first.id, name: 'twice', price: 1)
    raise 'no error'
  rescue ActiveRecord::RecordNotUnique
    same(Dish.count.positive?, true)
  end
end

check('rows_that_are_locked_are_counted_up') do
  dish = Dish.create!(name: 'counted', price: 0)
  at_once { ROUNDS.times { Dish.find(dish.id).with_lock { |locked| Dish.find(dish.id).increment!(:price) } } }
  same(dish.reload.price, THREADS * ROUNDS)
end

check('batches_and_upserts') do
  Dish.where(name: 'batch').delete_all
  Dish.insert_all(Array.new(250) { |n| { name: 'batch', price: n } })
  same(Dish.where(name: 'batch').find_each(batch_size: 40).sum(&:price), 250 * 249 / 2)
  first = Dish.where(name: 'batch').order(:price).first
  Dish.upsert_all([{ id: first.id, name: 'upsert', price: 5 }])
  same(first.reload.attributes.values_at('name', 'price'), ['upsert', 5])
end

# What Rails sets on each connection, what database.yml adds, and search paths as gems for tenants set them.
check('settings_follow_their_connection') do
  connection.execute('CREATE SCHEMA IF NOT EXISTS rails_tenant')
  connection.execute('DROP TABLE IF EXISTS rails_tenant.only_there')
  connection.execute('CREATE TABLE rails_tenant.only_there (x int)')
  at_once(6) do |n|
    own = ActiveRecord::Base.connection
    own.schema_search_path = 'rails_tenant, public' if n.odd?
    own.execute("SET statement_timeout = '#{n + 20}s'")
    ROUNDS.times do
      same(own.select_value('SHOW statement_timeout'), "#{n + 20}s")
      same(own.select_value('SHOW TimeZone'), 'UTC')
      same(own.select_value("SELECT to_regclass('only_there') IS NOT NULL"), n.odd?)
    end
    own.execute('RESET statement_timeout')
    own.schema_search_path = 'public'
  end
end

class Slow < ActiveRecord::Migration[6.1]
  BEGUN = Queue.new

  def up
    create_table(:rails_migrated) { |table| table.string :name }
    BEGUN << true
    sleep 0.5
  end

  def down
    drop_table :rails_migrated
  end
end

def migrator(direction = :up)
  proxy = Struct.new(:version, :name, :scope, :filename) do
    def migrate(way)
      Slow.new.migrate(way)
    end

    def disable_ddl_transaction
      false
    end
  end
  ActiveRecord::Migrator.new(direction, [proxy.new(1, 'Slow', '', '')], ActiveRecord::SchemaMigration)
end

check('only_one_migrates_at_a_time') do
  connection.drop_table(:rails_migrated, if_exists: true)
  ActiveRecord::SchemaMigration.create_table
  ActiveRecord::SchemaMigration.where(version: '1').delete_all
  first = Thread.new { ActiveRecord::Base.connection_pool.with_connection { migrator.migrate } }
  Slow::BEGUN.pop
  begin
    migrator.migrate
    raise 'two migrate at the same time'
  rescue ActiveRecord::ConcurrentMigrationError
    # The other one holds the lock.
  end
  first.join
  same(connection.table_exists?(:rails_migrated), true)
  migrator(:down).migrate
  locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
  same(Direct.connection.select_value(locks), 0)
end

# As the adapter of Action Cable does it.
check('notifications_are_heard') do
  heard = Queue.new
  listening = Queue.new
  listener = Thread.new do
    ActiveRecord::Base.connection_pool.with_connection do |own|
      raw = own.raw_connection
      raw.async_exec('LISTEN rails_news')
      listening << true
      3.times { raw.wait_for_notify(20) { |_channel, _pid, text| heard << text } }
      raw.async_exec('UNLISTEN rails_news')
    end
  end
  listening.pop
  3.times { |n| connection.execute("NOTIFY rails_news, 'text #{n}'") }
  listener.join
  same(Array.new(3) { heard.pop }, ['text 0', 'text 1', 'text 2'])
end

check('lost_server_is_one_error_and_then_work_goes_on') do
  begin
    Dish.transaction do
      Direct.connection.execute("SELECT pg_terminate_backend(#{pid})")
      Dish.count
    end
    raise 'no error'
  rescue ActiveRecord::StatementInvalid
    ActiveRecord::Base.clear_active_connections!
  end
  raise 'no dishes' unless Dish.count.positive?
end

connection.execute(<<~SQL)
  DROP TABLE IF EXISTS rails_notes, rails_dishes;
  CREATE TABLE rails_dishes (id bigserial PRIMARY KEY, name text NOT NULL, price int NOT NULL);
  CREATE TABLE rails_notes (id bigserial PRIMARY KEY, dish_id bigint NOT NULL REFERENCES rails_dishes, text text NOT NULL)
SQL
puts "note versions: ActiveRecord #{ActiveRecord.version}, pg #{PG::VERSION}, Ruby #{RUBY_VERSION}"
$stdout.sync = true
failed = 0
CHECKS.each do |name, run|
  next unless ARGV.empty? || ARGV.include?(name)

  begin
    Timeout.timeout(CHECK_SECONDS, &run)
    puts "ok #{name}"
  rescue StandardError => error
    failed += 1
    puts "not ok #{name}: #{error.class}: #{error.message.tr("\n", ' ')[0, 2000]}"
    warn error.full_message
  end
end
exit failed.zero?
